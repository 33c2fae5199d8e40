// One Prefill or Decode stream: commands come in from the router, events go out, both without blocking a thread.
//
// gRPC's reactor (callback API) calls in on its own threads; the engine thread sends and finishes. The object keeps
// itself alive until gRPC is done with it (OnDone) and is shared with the engine, which may go on calling Send and
// Finish long after the peer has gone: they then do nothing.
//
// A peer that reads slowly only makes the queue longer; `merge` keeps it short for events that can be joined.
#ifndef SALAMANDER_COMMON_WORKER_EVENT_STREAM_H_
#define SALAMANDER_COMMON_WORKER_EVENT_STREAM_H_

#include <grpcpp/support/server_callback.h>

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "common/service/grpc_status.h"

namespace salamander::worker {

template <typename Command, typename Event>
class EventStream final : public grpc::ServerBidiReactor<Command, Event> {
 public:
  using Ptr = std::shared_ptr<EventStream>;
  // Called on gRPC's threads, in order but for on_cancel, which may come at any time. They must not block.
  struct Handlers {
    std::function<void(const Ptr&, Command)> on_command;
    std::function<void(const Ptr&)> on_half_close;  // The peer sends no more; it still listens.
    std::function<void(const Ptr&)> on_cancel;      // The peer is gone. The stream has been finished already.
  };

  // The reactor to return from the service's method.
  static EventStream* Open(Handlers handlers) {
    Ptr stream(new EventStream(std::move(handlers)));
    EventStream* reactor = stream.get();
    reactor->self_ = std::move(stream);
    reactor->StartRead(&reactor->command_);
    return reactor;
  }

  // Queues an event. `merge(last, event)` may join it to the last event not yet on its way and return true.
  void Send(Event event, bool (*merge)(Event& last, const Event& event) = nullptr) {
    std::lock_guard lock(mutex_);
    if (end_.has_value()) return;
    if (merge != nullptr && !queue_.empty() && merge(queue_.back(), event)) return;
    queue_.push_back(std::move(event));
    Pump();
  }

  // Ends the stream after the events queued so far; a failure overtakes them. The first call counts.
  void Finish(const absl::Status& status) {
    std::lock_guard lock(mutex_);
    if (end_.has_value()) return;
    end_ = status;
    if (!status.ok()) queue_.clear();
    Pump();
  }

  // Finished, or on its way there. Once an on_cancel has been called it is true.
  bool ended() {
    std::lock_guard lock(mutex_);
    return end_.has_value();
  }

  // The reservation that this stream has claimed, 0 for none. Engine thread only.
  uint64_t claimed_epoch = 0;

 private:
  explicit EventStream(Handlers handlers) : handlers_(std::move(handlers)) {}

  void OnReadDone(bool ok) override {
    if (!ok) {
      handlers_.on_half_close(self_);
      return;
    }
    handlers_.on_command(self_, std::move(command_));
    command_.Clear();
    std::lock_guard lock(mutex_);
    if (!finished_) this->StartRead(&command_);
  }

  void OnWriteDone(bool ok) override {
    std::lock_guard lock(mutex_);
    writing_.reset();
    if (!ok) queue_.clear();  // Broken; OnCancel follows.
    Pump();
  }

  void OnCancel() override {
    Finish(absl::CancelledError("the router ended the stream"));
    handlers_.on_cancel(self_);
  }

  void OnDone() override {
    // May destroy this object, so nothing after it.
    Ptr self = std::move(self_);
  }

  // Lock held. One write at a time; the status goes out when the last one is done.
  void Pump() {
    if (writing_.has_value() || finished_) return;
    if (!queue_.empty()) {
      writing_ = std::move(queue_.front());
      queue_.pop_front();
      this->StartWrite(&*writing_);
    } else if (end_.has_value()) {
      finished_ = true;
      this->grpc::template ServerBidiReactor<Command, Event>::Finish(service::ToGrpc(*end_));
    }
  }

  const Handlers handlers_;
  Ptr self_;         // Until OnDone.
  Command command_;  // Being read.

  std::mutex mutex_;
  std::deque<Event> queue_;
  std::optional<Event> writing_;
  std::optional<absl::Status> end_;
  bool finished_ = false;
};

}  // namespace salamander::worker

#endif  // SALAMANDER_COMMON_WORKER_EVENT_STREAM_H_
