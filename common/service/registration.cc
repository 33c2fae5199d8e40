#include "common/service/registration.h"

#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/thread_pool.h"
#include "common/service/channel.h"
#include "common/service/grpc_status.h"
#include "common/service/tls_diagnosis.h"
#include "salamander/v1/cluster.grpc.pb.h"

namespace salamander::service {
namespace {

// A router that accepted the stream but does not answer the hello is given up after this.
constexpr double kWelcomeTimeoutSeconds = 5;
constexpr double kMaxRetrySeconds = 10;
constexpr double kResolveRetriesPerInterval = 10;

// waiting ─due─▶ dialing ─Welcome─▶ registered
//    ▲──────stream ended──┴──────────┘          any ─refused─▶ refused (final)
enum class LinkState { kWaiting, kDialing, kRegistered, kRefused };

std::string_view StateName(LinkState state) {
  switch (state) {
    case LinkState::kWaiting:
      return "waiting";
    case LinkState::kDialing:
      return "dialing";
    case LinkState::kRegistered:
      return "registered";
    case LinkState::kRefused:
      return "refused";
  }
  return "?";
}

bool IsRefusal(const absl::Status& status) {
  return status.code() == absl::StatusCode::kFailedPrecondition || status.code() == absl::StatusCode::kAlreadyExists ||
         status.code() == absl::StatusCode::kUnauthenticated;
}

}  // namespace

// One thread does everything that calls out: dials, writes, and the owner's callbacks. gRPC's reactions and the thread
// that looks names up only note what happened under `mutex` and wake it.
struct Registration::Impl : std::enable_shared_from_this<Impl> {
  class Stream;

  struct Link {
    std::string address;
    bool listed = true;  // a name has the address still
    std::unique_ptr<v1::Cluster::Stub> stub;
    LinkState state = LinkState::kWaiting;
    Stream* stream = nullptr;  // owns itself until its OnDone
    double due = 0;            // waiting: dial; dialing: give up; registered: next beat
    double heartbeat_seconds = 1;
    double retry_seconds = 0;
    bool beat_now = false;
    v1::Peers peers;
  };

  explicit Impl(RegistrationOptions given) : options(std::move(given)) {}

  void Run();
  void Resolve();
  void ListLinks();
  void StepLink(Link& link, std::unique_lock<std::mutex>& lock);
  void SendBeat(Link& link, std::unique_lock<std::mutex>& lock);
  void ReportPeers(std::unique_lock<std::mutex>& lock);
  void ReportRefusal(std::unique_lock<std::mutex>& lock);
  void Enter(Link& link, LinkState next, const std::string& why);
  // Says once for each reason why a router cannot be reached although it is there. On `explainer`, since it blocks.
  void Explain(const std::string& router);
  void OnMessage(Link& link, const v1::RouterMessage& message);
  void OnEnd(Link& link, const absl::Status& status);
  void Wake();

  const RegistrationOptions options;
  std::mutex mutex;
  std::condition_variable wake;
  bool stopping = false;
  bool changed = false;  // something happened that the thread has not looked at
  bool peers_changed = false;
  std::optional<absl::Status> refusal;
  // By router, what it was last found to be.
  std::map<std::string, std::vector<std::string>> addresses;
  bool addresses_changed = false;
  std::list<Link> links;  // grown and shrunk by Run only; a link with a stream stays
  std::string reported_peers;
  std::map<std::string, std::string> explained;  // router → reason; on `explainer` only
  ThreadPool explainer{"tls_explainer", 1};
  std::thread thread, resolver;
};

// One attempt at one router. Holds a hold until no write can start any more, since writes start outside of reactions.
class Registration::Impl::Stream final : public grpc::ClientBidiReactor<v1::WorkerMessage, v1::RouterMessage> {
 public:
  Stream(std::shared_ptr<Impl> impl, Link* link) : impl_(std::move(impl)), link_(link) {}

  // All below but the reactions: under the mutex.
  void Start() {
    *write_.mutable_hello() = impl_->options.hello;
    writing_ = true;
    link_->stub->async()->Register(&context_, this);
    AddHold();
    StartRead(&read_);
    StartWrite(&write_);
    StartCall();
  }
  bool CanWrite() const { return !closed_ && !writing_; }
  void Write(v1::Heartbeat beat) {
    *write_.mutable_heartbeat() = std::move(beat);
    writing_ = true;
    StartWrite(&write_);
  }
  void Cancel() { context_.TryCancel(); }

  void OnReadDone(bool ok) override {
    std::lock_guard lock(impl_->mutex);
    if (!ok) return Close();
    impl_->OnMessage(*link_, read_);
    StartRead(&read_);
  }
  void OnWriteDone(bool ok) override {
    std::lock_guard lock(impl_->mutex);
    writing_ = false;
    if (!ok) Close();
    impl_->Wake();
  }
  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<Impl> impl = std::move(impl_);
    {
      std::lock_guard lock(impl->mutex);
      // A router never ends the stream with OK while it lives.
      const absl::Status end = FromGrpc(status);
      impl->OnEnd(*link_, end.ok() ? absl::UnavailableError("the router ended the stream") : end);
    }
    delete this;
  }

 private:
  void Close() {
    if (closed_) return;
    closed_ = true;
    RemoveHold();
  }

  std::shared_ptr<Impl> impl_;
  Link* link_;
  grpc::ClientContext context_;
  v1::WorkerMessage write_;
  v1::RouterMessage read_;
  bool writing_ = false;
  bool closed_ = false;
};

void Registration::Impl::Enter(Link& link, LinkState next, const std::string& why) {
  // One line when a router comes or goes, not one for each attempt at an absent one.
  const bool quiet = next == LinkState::kDialing || (next == LinkState::kWaiting && link.state == LinkState::kDialing);
  Log(quiet ? LogLevel::kDebug : LogLevel::kInfo,
      std::string(absl::StrCat("registration at ", link.address, ": ", StateName(link.state).data(), " -> ",
                               StateName(next).data(), why.empty() ? "" : ": ", why)));
  link.state = next;
}

void Registration::Impl::OnMessage(Link& link, const v1::RouterMessage& message) {
  if (message.has_welcome()) {
    if (message.welcome().heartbeat_seconds() > 0) link.heartbeat_seconds = message.welcome().heartbeat_seconds();
    link.retry_seconds = options.retry_seconds;
    link.due = RealClock().Now();
    if (link.state != LinkState::kRegistered) {
      Enter(link, LinkState::kRegistered, absl::StrCat("router ", message.welcome().router_version()));
    }
  } else if (message.has_peers()) {
    link.peers = message.peers();
    peers_changed = true;
  }
  Wake();
}

void Registration::Impl::OnEnd(Link& link, const absl::Status& status) {
  link.stream = nullptr;
  if (link.peers.peers_size() > 0) peers_changed = true;
  link.peers.Clear();
  if (IsRefusal(status)) {
    if (!refusal.has_value()) refusal = status;
    Enter(link, LinkState::kRefused, status.ToString());
  } else {
    // It was never reached, as a refused handshake and an absent router show alike.
    const bool unreached = absl::IsUnavailable(status) && link.state == LinkState::kDialing;
    if (unreached && !stopping) explainer.Post([this, router = link.address] { Explain(router); });
    Enter(link, LinkState::kWaiting, status.ToString());
    link.due = RealClock().Now() + link.retry_seconds;
    link.retry_seconds = std::min(link.retry_seconds * 2, std::max(kMaxRetrySeconds, options.retry_seconds));
  }
  Wake();
}

void Registration::Impl::Explain(const std::string& router) {
  const std::string why = ExplainTlsFailure(router, options.security.tls);
  if (std::exchange(explained[router], why) == why || why.empty()) return;
  Log(LogLevel::kWarning, absl::StrCat("registration at ", router, " does not come about: ", why));
}

void Registration::Impl::Wake() {
  changed = true;
  wake.notify_all();
}

void Registration::Impl::Run() {
  SetThreadName("registration");
  std::unique_lock lock(mutex);
  while (!stopping) {
    changed = false;
    ListLinks();
    double due = RealClock().Now() + kMaxRetrySeconds;
    for (Link& link : links) {
      StepLink(link, lock);
      if (link.state != LinkState::kRefused) due = std::min(due, link.due);
    }
    if (peers_changed) ReportPeers(lock);
    if (refusal.has_value() && !refusal->ok()) ReportRefusal(lock);
    // `changed` also covers what happened while a callback had the mutex released.
    wake.wait_for(lock, std::chrono::duration<double>(std::max(0.0, due - RealClock().Now())),
                  [this] { return changed || stopping; });
  }
  for (Link& link : links) {
    if (link.stream != nullptr) link.stream->Cancel();
  }
  wake.wait(lock, [this] {
    return std::all_of(links.begin(), links.end(), [](const Link& link) { return link.stream == nullptr; });
  });
}

// Looks names up for as long as there are any, since what is behind them changes.
void Registration::Impl::Resolve() {
  SetThreadName("resolve");
  std::vector<std::string> routers = options.routers;
  std::map<std::string, std::string> failures;
  std::unique_lock lock(mutex);
  while (!stopping && !routers.empty()) {
    for (const std::string& router : routers) {
      lock.unlock();
      absl::StatusOr<std::vector<std::string>> found = options.resolve(router);
      lock.lock();
      if (stopping) return;
      const std::string failure = found.ok() ? "" : found.status().ToString();
      if (std::exchange(failures[router], failure) != failure && !found.ok()) {
        Log(LogLevel::kWarning, absl::StrCat("router ", router, ": ", failure));
      }
      if (!found.ok() || addresses[router] == *found) continue;
      addresses[router] = *std::move(found);
      addresses_changed = true;
      Wake();
    }
    std::erase_if(routers, IsAddress);
    const bool all_known = std::all_of(routers.begin(), routers.end(),
                                       [this](const std::string& router) { return !addresses[router].empty(); });
    const double seconds = all_known ? options.resolve_seconds : options.resolve_seconds / kResolveRetriesPerInterval;
    wake.wait_for(lock, std::chrono::duration<double>(seconds), [this] { return stopping; });
  }
}

// Makes the links those that names have now, and those that live still.
void Registration::Impl::ListLinks() {
  if (std::exchange(addresses_changed, false)) {
    std::map<std::string, std::string> wanted;  // address -> the name it was found under
    for (const auto& [router, found] : addresses) {
      for (const std::string& address : found) wanted.emplace(address, router);
    }
    for (Link& link : links) link.listed = wanted.erase(link.address) > 0;
    for (const auto& [address, router] : wanted) {
      Log(LogLevel::kInfo, absl::StrCat("router ", router, " is at ", address));
      Link& link = links.emplace_back();
      link.address = address;
      link.stub =
          v1::Cluster::NewStub(MakeChannel(address, options.security, {.authority = address == router ? "" : router}));
      link.retry_seconds = options.retry_seconds;
    }
  }
  std::erase_if(links, [](const Link& link) { return !link.listed && link.stream == nullptr; });
}

void Registration::Impl::StepLink(Link& link, std::unique_lock<std::mutex>& lock) {
  const double now = RealClock().Now();
  switch (link.state) {
    case LinkState::kWaiting:
      if (now < link.due) return;
      Enter(link, LinkState::kDialing, "");
      link.due = now + kWelcomeTimeoutSeconds;
      link.stream = new Stream(shared_from_this(), &link);
      link.stream->Start();
      return;
    case LinkState::kDialing:
      if (now < link.due) return;
      link.due = now + kWelcomeTimeoutSeconds;
      link.stream->Cancel();
      return;
    case LinkState::kRegistered:
      if (now < link.due && !link.beat_now) return;
      link.due = now + link.heartbeat_seconds;
      link.beat_now = true;
      if (link.stream->CanWrite()) SendBeat(link, lock);
      return;
    case LinkState::kRefused:
      return;
  }
}

void Registration::Impl::SendBeat(Link& link, std::unique_lock<std::mutex>& lock) {
  link.beat_now = false;
  Stream* const stream = link.stream;
  lock.unlock();
  v1::Heartbeat beat = options.heartbeat();
  lock.lock();
  if (link.stream == stream && stream->CanWrite()) stream->Write(std::move(beat));
}

void Registration::Impl::ReportPeers(std::unique_lock<std::mutex>& lock) {
  peers_changed = false;
  std::map<uint64_t, v1::Peer> by_instance;
  for (const Link& link : links) {
    for (const v1::Peer& peer : link.peers.peers()) by_instance[peer.instance_id()] = peer;
  }
  v1::Peers all;
  for (auto& [instance, peer] : by_instance) *all.add_peers() = std::move(peer);
  std::string bytes = all.SerializeAsString();
  if (bytes == reported_peers) return;
  reported_peers = std::move(bytes);
  lock.unlock();
  if (options.on_peers) options.on_peers(all);
  lock.lock();
}

void Registration::Impl::ReportRefusal(std::unique_lock<std::mutex>& lock) {
  const absl::Status status = *refusal;
  refusal = absl::OkStatus();  // reported
  lock.unlock();
  if (options.on_refused) options.on_refused(status);
  lock.lock();
}

Registration::Registration(RegistrationOptions options) : impl_(std::make_shared<Impl>(std::move(options))) {
  impl_->thread = std::thread([impl = impl_.get()] { impl->Run(); });
  impl_->resolver = std::thread([impl = impl_.get()] { impl->Resolve(); });
}

Registration::~Registration() {
  {
    std::lock_guard lock(impl_->mutex);
    impl_->stopping = true;
    impl_->Wake();
  }
  impl_->thread.join();
  impl_->resolver.join();
}

void Registration::Beat() {
  std::lock_guard lock(impl_->mutex);
  for (Impl::Link& link : impl_->links) link.beat_now = true;
  impl_->Wake();
}

}  // namespace salamander::service
