#include "common/base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

namespace salamander {
namespace {

TEST(ThreadPool, RunsEverythingPostedBeforeAndWhileStopping) {
  std::atomic<int> ran = 0;
  {
    ThreadPool pool("test", 3);
    for (int i = 0; i < 100; ++i) {
      pool.Post([&] {
        ++ran;
        pool.Post([&] { ++ran; });
      });
    }
  }
  EXPECT_EQ(ran, 200);
}

TEST(SerialExecutor, KeepsOrderAndNeverOverlaps) {
  std::vector<int> seen;
  std::atomic<int> inside = 0;
  std::atomic<bool> overlapped = false;
  {
    ThreadPool pool("test", 4);
    SerialExecutor executor(&pool);
    for (int i = 0; i < 1000; ++i) {
      executor.Post([&, i] {
        if (++inside != 1) overlapped = true;
        seen.push_back(i);
        --inside;
      });
    }
  }
  EXPECT_FALSE(overlapped);
  ASSERT_EQ(seen.size(), 1000u);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(seen[i], i);
}

TEST(SerialExecutor, MayBeDestroyedFromItsOwnClosure) {
  std::atomic<int> ran = 0;
  {
    ThreadPool pool("test", 2);
    auto* executor = new SerialExecutor(&pool);
    executor->Post([&, executor] {
      delete executor;
      ++ran;
    });
  }
  EXPECT_EQ(ran, 1);
}

}  // namespace
}  // namespace salamander
