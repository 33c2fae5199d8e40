// The parts under the operations: exponentials, the pool, and the contest of blocks.
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <set>

#include "gtest/gtest.h"
#include "kernels/cpu/block_heap.h"
#include "kernels/cpu/block_plan.h"
#include "kernels/cpu/fork_join.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/ops.h"

namespace salamander::kernels {
namespace {

std::vector<const KernelTable*> Tables() {
  std::vector<const KernelTable*> tables = {&PortableKernels()};
#if defined(__x86_64__)
  if (DetectCpuIsa() >= CpuIsa::kAvx2) tables.push_back(&Avx2Kernels());
  if (DetectCpuIsa() >= CpuIsa::kAvx512) tables.push_back(&Avx512Kernels());
#endif
  return tables;
}

// Error of a float in units in the last place of the true value.
double Ulps(float got, double want) {
  const float near = static_cast<float>(want);
  return std::abs(got - want) / (std::nextafter(near, std::numeric_limits<float>::infinity()) - near);
}

TEST(ExponentialTest, WithinTwoUlps) {
  std::vector<float> x;
  for (double value = -86; value < 86; value += 0.000917) x.push_back(static_cast<float>(value));
  std::vector<float> e(x.size()), two(x.size());
  for (const KernelTable* kernels : Tables()) {
    kernels->exp(x.data(), e.data(), static_cast<int64_t>(x.size()));
    kernels->exp2(x.data(), two.data(), static_cast<int64_t>(x.size()));
    double worst_e = 0, worst_two = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      worst_e = std::max(worst_e, Ulps(e[i], std::exp(static_cast<double>(x[i]))));
      worst_two = std::max(worst_two, Ulps(two[i], std::exp2(static_cast<double>(x[i]))));
    }
    EXPECT_LT(worst_e, 2);
    EXPECT_LT(worst_two, 2);
  }
}

TEST(ExponentialTest, SpecialValues) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {0, 1e30f, -1e30f, std::nanf(""), 1, -1, 127, -150};
  for (const KernelTable* kernels : Tables()) {
    std::vector<float> y(x.size());
    kernels->exp2(x.data(), y.data(), static_cast<int64_t>(x.size()));
    EXPECT_EQ(y[0], 1);
    EXPECT_EQ(y[1], inf);
    EXPECT_EQ(y[2], 0);
    EXPECT_TRUE(std::isnan(y[3]));
    EXPECT_EQ(y[4], 2);
    EXPECT_EQ(y[5], 0.5f);
    EXPECT_EQ(y[6], std::exp2(127.0f));
    EXPECT_EQ(y[7], 0);
    const std::vector<float> z = {0, inf, -inf, std::nanf("")};
    kernels->exp(z.data(), y.data(), 4);
    EXPECT_EQ(y[0], 1);
    EXPECT_EQ(y[1], inf);
    EXPECT_LT(y[2], 1e-37f);
    EXPECT_TRUE(std::isnan(y[3]));
  }
}

TEST(ForkJoinTest, RunsEveryTaskOnce) {
  for (int threads : {1, 2, 7}) {
    ForkJoin pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (int64_t tasks : {0, 1, 2, 3, 100, 5000}) {
      std::vector<std::atomic<int>> runs(tasks);
      std::atomic<bool> bad_thread = false;
      pool.Run(tasks, [&](int64_t task, int thread) {
        ++runs[task];
        if (thread < 0 || thread >= threads) bad_thread = true;
      });
      EXPECT_FALSE(bad_thread);
      EXPECT_TRUE(std::all_of(runs.begin(), runs.end(), [](const auto& n) { return n == 1; }));
    }
  }
}

// Short jobs one after the other: a worker that wakes late must never run a task of a job that has returned.
TEST(ForkJoinTest, LateWorkersFindNothing) {
  ForkJoin pool(4);
  for (int round = 0; round < 20000; ++round) {
    std::array<int, 3> done = {};  // gone when Run has returned
    pool.Run(3, [&](int64_t task, int) {
      for (int spin = 0; spin < round % 2000; ++spin) std::atomic_signal_fence(std::memory_order_seq_cst);
      ++done[task];
    });
    ASSERT_EQ(done, (std::array<int, 3>{1, 1, 1}));
  }
}

TEST(BlockHeapTest, KeepsTheBestAndTheLowerOfEquals) {
  std::mt19937 random(3);
  for (int capacity : {1, 2, 7, 64}) {
    for (int count : {1, 7, 64, 500}) {
      std::vector<uint64_t> keys(capacity);
      BlockHeap heap = {keys.data(), 0, capacity};
      std::vector<float> values(count);
      for (float& value : values) value = static_cast<float>(random() % 20) / 4;  // many ties
      float to_beat = -1;
      for (int b = 0; b < count; ++b) {
        if (values[b] > to_beat) to_beat = OfferToHeap(heap, values[b], b);
      }
      std::vector<int32_t> want(count), got(heap.size);
      std::iota(want.begin(), want.end(), 0);
      std::stable_sort(want.begin(), want.end(), [&](int a, int b) { return values[a] > values[b]; });
      want.resize(std::min(capacity, count));
      HeapBlocks(heap, got.data());
      EXPECT_EQ(std::set<int32_t>(got.begin(), got.end()), std::set<int32_t>(want.begin(), want.end()));
    }
  }
}

TEST(BlockHeapTest, NaNIsNeverChosen) {
  std::vector<uint64_t> keys(2);
  BlockHeap heap = {keys.data(), 0, 2};
  EXPECT_LT(OfferToHeap(heap, std::nanf(""), 0), 0);
  OfferToHeap(heap, 0, 1);
  OfferToHeap(heap, std::nanf(""), 2);
  OfferToHeap(heap, 1, 3);
  EXPECT_EQ(OfferToHeap(heap, std::nanf(""), 4), 0);
  int32_t got[2];
  HeapBlocks(heap, got);
  EXPECT_EQ((std::set<int32_t>{got[0], got[1]}), (std::set<int32_t>{1, 3}));
}

TEST(BlockPlanTest, ForcedBlocksAndPlaces) {
  const SparseShape shape = {4, {1, 64, DType::kFloat32}, /*init=*/1, /*local=*/2, /*top=*/5};
  const auto plan_at = [&](int64_t block) { return BlockPlan(shape, block * kBlockTokens + 7); };
  EXPECT_FALSE(plan_at(0).contested());
  EXPECT_FALSE(plan_at(4).contested());  // five blocks, five places
  EXPECT_TRUE(plan_at(5).contested());
  EXPECT_EQ(plan_at(5).begin, 1);
  EXPECT_EQ(plan_at(5).end, 3);
  EXPECT_EQ(plan_at(5).places, 1);
  std::vector<int32_t> out(5);
  plan_at(3).Write({}, out.data());
  EXPECT_EQ(out, (std::vector<int32_t>{0, 1, 2, 3, -1}));
  std::vector<uint64_t> keys(1);
  BlockHeap heap = {keys.data(), 0, 1};
  OfferToHeap(heap, 0.5f, 2);
  plan_at(5).Write(heap, out.data());
  EXPECT_EQ(out, (std::vector<int32_t>{0, 2, 3, 4, 5}));
}

TEST(BlockPlanTest, TooManyForcedBlocksKeepTheLower) {
  const SparseShape shape = {4, {1, 64, DType::kFloat32}, /*init=*/2, /*local=*/3, /*top=*/4};
  const BlockPlan plan(shape, 20 * kBlockTokens);
  EXPECT_FALSE(plan.contested());
  std::vector<int32_t> out(4);
  plan.Write({}, out.data());
  EXPECT_EQ(out, (std::vector<int32_t>{0, 1, 17, 18}));
}

}  // namespace
}  // namespace salamander::kernels
