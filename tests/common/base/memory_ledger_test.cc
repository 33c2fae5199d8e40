#include "common/base/memory_ledger.h"

#include <gtest/gtest.h>

#include <thread>
#include <utility>
#include <vector>

namespace salamander {
namespace {

int64_t Sum(const MemoryLedger::Snapshot& s) {
  int64_t sum = s.free;
  for (int64_t held : s.held) sum += held;
  return sum;
}

TEST(MemoryLedger, HoldsAddUpAndComeBack) {
  MemoryLedger ledger(1000);
  const MemoryLedger::Snapshot start = ledger.Read();
  {
    auto pages = ledger.Take(MemoryOwner::kPages, 600);
    ASSERT_TRUE(pages.ok());
    auto states = ledger.Take(MemoryOwner::kStates, 400);
    ASSERT_TRUE(states.ok());
    EXPECT_EQ(ledger.Read().free, 0);
    EXPECT_EQ(ledger.Read().held[static_cast<int>(MemoryOwner::kPages)], 600);
    MemoryLedger::Hold moved = std::move(*pages);
    EXPECT_EQ(moved.bytes(), 600);
    EXPECT_EQ(Sum(ledger.Read()), 1000);
    *states = std::move(moved);  // Gives the 400 back, keeps the 600.
    EXPECT_EQ(ledger.Read().free, 400);
  }
  EXPECT_EQ(ledger.Read(), start);
}

TEST(MemoryLedger, RefusesMoreThanFreeAndNamesTheNumbers) {
  MemoryLedger ledger(1000);
  auto hold = ledger.Take(MemoryOwner::kWeights, 900);
  ASSERT_TRUE(hold.ok());
  auto refused = ledger.Take(MemoryOwner::kPages, 101);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(refused.status().message(), "memory for pages: asked 101 bytes, free 100 of 1000");
  EXPECT_FALSE(ledger.Take(MemoryOwner::kPages, -1).ok());
}

TEST(MemoryLedger, AddsUpAtEveryMomentUnderThreads) {
  MemoryLedger ledger(1 << 20);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&ledger, t] {
      for (int i = 0; i < 2000; ++i) {
        auto hold = ledger.Take(static_cast<MemoryOwner>((t + i) % kMemoryOwners), i % 300);
        ASSERT_TRUE(hold.ok());
        ASSERT_EQ(Sum(ledger.Read()), 1 << 20);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ledger.Read().free, 1 << 20);
}

}  // namespace
}  // namespace salamander
