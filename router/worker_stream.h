// One bidirectional call to a worker: commands out, events in, until either side ends it.
#ifndef SALAMANDER_ROUTER_WORKER_STREAM_H_
#define SALAMANDER_ROUTER_WORKER_STREAM_H_

#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include "absl/status/status.h"
#include "common/service/grpc_status.h"
#include "router/write_queue.h"

namespace salamander::router {

// Keeps itself alive until gRPC is done with it. Any thread; handlers run on gRPC's threads, one at a time, with no
// lock held. `on_end` is the last and comes exactly once, whatever happens.
template <typename Command, typename Event>
class WorkerStream final : public grpc::ClientBidiReactor<Command, Event> {
 public:
  struct Handlers {
    std::function<void(Event)> on_event;
    std::function<void(absl::Status)> on_end;
  };

  // `open` binds the reactor to its method: stub->async()->Method(context, reactor). The call goes out with the first
  // command.
  template <typename Open>
  static std::shared_ptr<WorkerStream> Start(std::chrono::system_clock::time_point deadline, Open open,
                                             Handlers handlers) {
    auto stream = std::make_shared<WorkerStream>(std::move(handlers));
    stream->self_ = stream;
    stream->context_.set_deadline(deadline);
    stream->context_.set_initial_metadata_corked(true);  // goes out with the first command
    open(&stream->context_, stream.get());
    // Send and CloseWrites start operations outside of reactions; the hold is theirs until the first failed read.
    stream->AddHold();
    stream->StartRead(&stream->event_);
    stream->StartCall();
    return stream;
  }

  explicit WorkerStream(Handlers handlers) : handlers_(std::move(handlers)) {}

  // Dropped if the stream has ended or its writing side is closed.
  void Send(Command command) {
    std::lock_guard lock(mutex_);
    if (ended_ || closing_) return;
    if (const Command* next = writes_.Push(std::move(command))) this->StartWrite(next);
  }

  // Half-closes once all is written.
  void CloseWrites() {
    std::lock_guard lock(mutex_);
    if (ended_ || closing_) return;
    closing_ = true;
    if (writes_.empty()) this->StartWritesDone();
  }

  void Cancel() { context_.TryCancel(); }

 private:
  void OnReadDone(bool ok) override {
    if (ok) {
      handlers_.on_event(std::move(event_));
      event_.Clear();
      this->StartRead(&event_);
      return;
    }
    std::lock_guard lock(mutex_);
    ended_ = true;
    this->RemoveHold();
  }

  void OnWriteDone(bool ok) override {
    std::lock_guard lock(mutex_);
    if (!ok || ended_) {
      ended_ = ended_ || !ok;
      writes_.DropWaiting();
      writes_.Pop();
      return;
    }
    if (const Command* next = writes_.Pop()) {
      this->StartWrite(next);
    } else if (closing_) {
      this->StartWritesDone();
    }
  }

  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<WorkerStream> self = std::move(self_);
    handlers_.on_end(service::FromGrpc(status));
    handlers_ = {};
  }

  grpc::ClientContext context_;
  std::shared_ptr<WorkerStream> self_;
  Handlers handlers_;
  Event event_;

  std::mutex mutex_;
  WriteQueue<Command> writes_;
  bool ended_ = false;    // no operation may start outside of reactions
  bool closing_ = false;  // nothing more to write
};

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_WORKER_STREAM_H_
