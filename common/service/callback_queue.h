// gRPC's queue of callbacks, which all channels and servers of a process share.
#ifndef SALAMANDER_COMMON_SERVICE_CALLBACK_QUEUE_H_
#define SALAMANDER_COMMON_SERVICE_CALLBACK_QUEUE_H_

namespace salamander::service {

// Keeps the queue until the process ends. gRPC 1.51 ends it with its last user, and one of the threads that serve it
// may then give back its reference once too often ("assertion failed: prior > 0"). Once is enough; any thread.
void KeepCallbackQueue();

}  // namespace salamander::service

#endif  // SALAMANDER_COMMON_SERVICE_CALLBACK_QUEUE_H_
