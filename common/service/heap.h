// Memory that requests have left goes back to the operating system.
#ifndef SALAMANDER_COMMON_SERVICE_HEAP_H_
#define SALAMANDER_COMMON_SERVICE_HEAP_H_

namespace salamander::service {

// glibc keeps what was freed between blocks that are still in use: after a burst of requests a process stays as large
// as it was, and grows with every burst whose blocks lie differently. From now on, for as long as the process lives, a
// thread of its own gives such memory back every few seconds, if it is much.
void TrimHeapNowAndThen();

}  // namespace salamander::service

#endif  // SALAMANDER_COMMON_SERVICE_HEAP_H_
