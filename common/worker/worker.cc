#include "common/worker/worker.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace salamander::worker {
namespace {

// A request that is over may have tokens and its status still on their way to the router, who reads them as fast as its
// client does; a router that takes none for so long loses them. Limits how long a drained worker is still there.
constexpr double kLastMessagesSeconds = 5;

}  // namespace

absl::StatusOr<std::unique_ptr<Worker>> Worker::Start(std::unique_ptr<Host> host, const MakeRole& make_role) {
  std::unique_ptr<Worker> worker(new Worker(std::move(host)));
  RETURN_IF_ERROR(worker->Init(make_role));
  return worker;
}

absl::Status Worker::Init(const MakeRole& make_role) {
  ASSIGN_OR_RETURN(role_, make_role(host_.get(), [this] { membership_.Beat(); }));
  const service::WorkerOptions& options = host_->options;
  ASSIGN_OR_RETURN(server_, service::Server::Start(options.server, host_->metrics.get(), {role_->service()}));
  server_->SetServing(true);
  membership_.Join({.routers = options.routers,
                    .security = service::MemberSecurity(options.server.security),
                    .hello = Hello(),
                    .heartbeat = [this] { return Heartbeat(); },
                    .on_peers = [this](const v1::Peers& peers) { role_->OnPeers(peers); },
                    .on_refused =
                        [on_fatal = options.on_fatal](const absl::Status& status) {
                          if (on_fatal) on_fatal(status);
                        }});
  return absl::OkStatus();
}

// No more peers, then no more calls, then no more requests.
Worker::~Worker() {
  membership_.Leave();
  if (role_ != nullptr) {
    role_->OnPeers({});
    role_->requests().EndAll(absl::UnavailableError("the worker ends"));
  }
  if (server_ != nullptr) server_->Shutdown(0);
  server_.reset();
  role_.reset();
}

void Worker::Drain(double grace_seconds) {
  RequestTableBase& requests = role_->requests();
  draining_ = true;
  leaving_ = true;
  server_->SetServing(false);
  requests.StopReserving();
  membership_.Beat();
  if (!requests.live().WaitForZero(grace_seconds)) {
    requests.EndAll(absl::UnavailableError(absl::StrCat("worker ", host_->name, " stops, its grace is over")));
    role_->OnPeers({});  // A peer that takes nothing any more must not hold up the end.
    requests.live().WaitForZero();
  }
  server_->Shutdown(kLastMessagesSeconds);
}

void Worker::Abort(const absl::Status& why) {
  constexpr double kLastWordsSeconds = 1;
  draining_ = true;
  server_->SetServing(false);
  membership_.Beat();
  role_->requests().EndAll(
      absl::UnavailableError(absl::StrCat("worker ", host_->name, " cannot go on: ", why.message())));
  // The statuses of streams are on their way once no call is running.
  server_->Shutdown(kLastWordsSeconds);
}

v1::WorkerHello Worker::Hello() const {
  v1::WorkerHello hello = host_->Hello(server_->address());
  hello.set_role(role_->requests().role());
  hello.set_request_memory_bytes(role_->requests().request_bytes());
  role_->AddTo(hello);
  return hello;
}

v1::Heartbeat Worker::Heartbeat() {
  v1::Heartbeat beat;
  beat.set_ready(!draining_);
  beat.set_draining(leaving_);
  beat.set_active_requests(role_->requests().live().Read());
  beat.set_free_memory_bytes(role_->requests().free_request_bytes());
  ReportMemory(host_->ledger(), beat);
  role_->AddTo(beat);
  return beat;
}

}  // namespace salamander::worker
