#include "common/service/heap.h"

#include <malloc.h>

#include <chrono>
#include <cstddef>
#include <thread>

#include "common/base/thread_pool.h"

namespace salamander::service {

void TrimHeapNowAndThen() {
  constexpr std::chrono::seconds kPeriod(5);
  constexpr size_t kMuch = size_t{16} << 20;
  std::thread([kPeriod] {
    SetThreadName("heap_trim");
    while (true) {
      std::this_thread::sleep_for(kPeriod);
      // Of all arenas together.
      if (mallinfo2().fordblks > kMuch) malloc_trim(0);
    }
  }).detach();
}

}  // namespace salamander::service
