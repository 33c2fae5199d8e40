#include "common/base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
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

TEST(SerialExecutor, RunsHereWhenIdleAndInTurnWhenNot) {
  ThreadPool pool("test", 1);
  SerialExecutor executor(&pool);
  std::vector<int> seen;
  executor.Run([&] {
    executor.Run([&] { seen.push_back(2); });
    executor.Post([&] { seen.push_back(3); });
    seen.push_back(1);
  });
  EXPECT_EQ(seen, (std::vector<int>{1, 2, 3}));
}

TEST(SerialExecutor, RunAndPostFromManyThreadsNeverOverlap) {
  constexpr int kThreads = 4, kEach = 500;
  int ran = 0;  // no atomic: the executor is its lock
  {
    ThreadPool pool("test", 2);
    SerialExecutor executor(&pool);
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < kEach; ++i) {
          executor.Run([&] { ++ran; });
          executor.Post([&] { ++ran; });
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  EXPECT_EQ(ran, 2 * kThreads * kEach);
}

TEST(SerialExecutor, MayBeDestroyedFromItsOwnClosure) {
  std::atomic<int> ran = 0;
  {
    ThreadPool pool("test", 2);
    const auto end = [&ran](SerialExecutor* executor) {
      delete executor;
      ++ran;
    };
    auto* executor = new SerialExecutor(&pool);
    executor->Post([=] { end(executor); });
    auto* other = new SerialExecutor(&pool);
    other->Run([=] { end(other); });
  }
  EXPECT_EQ(ran, 2);
}

}  // namespace
}  // namespace salamander
