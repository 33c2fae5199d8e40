// The part of the UCX transport that its connections and messages share: UCX's objects, and the one thread that
// touches them.
//
// Two workers: peers connect to the inbox, whose address is published; our connections start from the outbox. With one
// worker UCX would let a connection to a peer and that peer's connection to us share an endpoint, and closing ours
// would break theirs.
#ifndef SALAMANDER_COMMON_TRANSPORT_UCX_CORE_H_
#define SALAMANDER_COMMON_TRANSPORT_UCX_CORE_H_

#include <ucp/api/ucp.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "common/transport/transport.h"
#include "common/transport/ucx_config.h"

namespace salamander::transport {

// Active message ids. A goodbye says that the sender closes this endpoint once nothing is underway on it: the receiver
// refuses what it has not begun to receive from there. Both because UCX 1.13 cannot be made to drop what is underway:
// closing a TCP endpoint by force in the middle of a message leaves the socket open for the other direction, with
// events that later hit freed memory.
inline constexpr unsigned kUcxMessageId = 0, kUcxGoodbyeId = 1;
// Payloads up to this go along with their header; larger ones by rendezvous, straight into the receiver's memory.
inline constexpr size_t kUcxEagerBytes = 4096;

class UcxCore : public std::enable_shared_from_this<UcxCore> {
 public:
  static absl::StatusOr<std::shared_ptr<UcxCore>> Create(const UcxOptions& options);
  ~UcxCore();

  // Ends the thread, refuses what is announced, drops what is being received. Not on the progress thread.
  void Stop();

  // Runs `task` on the progress thread, soon. False, and it never runs, once stopped. Any thread.
  bool Post(std::function<void()> task);
  void PostAfter(std::chrono::milliseconds delay, std::function<void()> task);

  const std::string& address() const { return address_; }
  void SetHandler(MessageHandler handler);

  // The rest is for the progress thread.
  ucp_worker_h outbox() const { return outbox_; }
  // `announced` is a payload that waits at its sender. One of the two, once.
  void StartReceive(uint64_t announced, absl::Span<std::byte> memory, std::function<void(absl::Status)> done);
  void Release(uint64_t announced);

 private:
  explicit UcxCore(UcxContext context) : context_(std::move(context)) {}
  absl::Status Start();
  absl::Status CreateWorker(ucp_worker_h* worker, int* event);

  void Run();
  // Of Run: everything that can be done now. Then sleeps until something happens.
  void WorkUntilIdle();
  void Sleep();
  bool RunTasks();
  // Until the next delayed task; −1 if there is none.
  int MillisecondsToSleep();

  absl::Status SetHandlers();
  static ucs_status_t OnGoodbye(void* self, const void* header, size_t header_bytes, void* data, size_t bytes,
                                const ucp_am_recv_param_t* param);
  static ucs_status_t OnMessage(void* self, const void* header, size_t header_bytes, void* data, size_t bytes,
                                const ucp_am_recv_param_t* param);

  // A receive underway.
  struct Receive {
    UcxCore* core = nullptr;
    std::function<void(absl::Status)> done;
    std::list<Receive>::iterator self;
  };
  static void OnReceived(void* request, ucs_status_t status, size_t bytes, void* receive);
  void EndReceive(Receive& receive, ucs_status_t status);

  UcxContext context_;
  ucp_worker_h inbox_ = nullptr, outbox_ = nullptr;
  int inbox_event_ = -1, outbox_event_ = -1;  // owned by the workers
  int wake_event_ = -1;                       // ours, for tasks
  std::string address_;

  std::mutex mutex_;  // of what follows, up to the blank line
  std::vector<std::function<void()>> tasks_;
  std::multimap<std::chrono::steady_clock::time_point, std::function<void()>> delayed_;
  std::shared_ptr<const MessageHandler> handler_;
  bool stopping_ = false;

  // Of the progress thread, and of Stop once that has ended. Kept so that what never ends can be dropped.
  std::list<Receive> receives_;
  struct Announced {
    void* descriptor;      // UCX's
    const void* endpoint;  // the sender's, to compare only: UCX may have destroyed it
  };
  std::unordered_map<uint64_t, Announced> announced_;
  uint64_t next_announced_ = 1;

  std::thread thread_;
};

}  // namespace salamander::transport

#endif  // SALAMANDER_COMMON_TRANSPORT_UCX_CORE_H_
