#include "common/service/heap.h"

#include <gtest/gtest.h>
#include <malloc.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <fstream>
#include <memory>
#include <thread>
#include <vector>

namespace salamander::service {
namespace {

double ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  double total_pages = 0, resident_pages = 0;
  statm >> total_pages >> resident_pages;
  return resident_pages * static_cast<double>(sysconf(_SC_PAGESIZE));
}

TEST(TrimHeap, GivesBackWhatLiesBetweenBlocksInUse) {
  if (mallinfo2().arena == 0) GTEST_SKIP() << "another allocator than glibc's";
  constexpr size_t kBlocks = 1000, kBytes = 100 << 10;  // below glibc's threshold for blocks of their own
  std::vector<std::unique_ptr<char[]>> freed, kept;
  for (size_t i = 0; i < kBlocks; ++i) {
    freed.push_back(std::make_unique<char[]>(kBytes));
    std::memset(freed.back().get(), 1, kBytes);
    kept.push_back(std::make_unique<char[]>(1000));
  }
  const double full = ResidentBytes();
  freed.clear();
  EXPECT_GT(ResidentBytes(), full - 0.1 * kBlocks * kBytes) << "glibc does it by itself now";
  TrimHeapNowAndThen();
  for (int i = 0; i < 200 && ResidentBytes() > full - 0.9 * kBlocks * kBytes; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  EXPECT_LT(ResidentBytes(), full - 0.9 * kBlocks * kBytes);
}

}  // namespace
}  // namespace salamander::service
