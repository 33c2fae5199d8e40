#include "clients/cli/local_cluster.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"

namespace salamander::cli {
namespace {

// How often the router is asked for its workers while they start.
constexpr int kAskMilliseconds = 100;
constexpr absl::Duration kAskPatience = absl::Seconds(2);
// Beyond the grace that a stopping program gives its requests, before it is killed.
constexpr double kKillMarginSeconds = 5;

// The value of KEY=VALUE in a line of words; empty if there is none.
std::string ValueOf(const std::string& line, const std::string& key) {
  const size_t at = line.find(" " + key + "=");
  if (at == std::string::npos) return "";
  const size_t begin = at + key.size() + 2;
  return line.substr(begin, line.find(' ', begin) - begin);
}

std::string LastWords(const ChildProcess& child) {
  if (child.last_lines().empty()) return " without a word";
  return absl::StrCat("; its last words:\n", absl::StrJoin(child.last_lines(), "\n", [](std::string* out, auto& line) {
                        absl::StrAppend(out, "  ", line);
                      }));
}

}  // namespace

const char* ClusterPhaseName(ClusterPhase phase) {
  switch (phase) {
    case ClusterPhase::kStartingRouter:
      return "starting router";
    case ClusterPhase::kStartingWorkers:
      return "starting workers";
    case ClusterPhase::kServing:
      return "serving";
    case ClusterPhase::kStoppingRouter:
      return "stopping router";
    case ClusterPhase::kStoppingWorkers:
      return "stopping workers";
    case ClusterPhase::kStopped:
      return "stopped";
  }
  return "";
}

ClusterPhase NextPhase(ClusterPhase phase, ClusterEvent event) {
  switch (event) {
    case ClusterEvent::kRouterServing:
      return phase == ClusterPhase::kStartingRouter ? ClusterPhase::kStartingWorkers : phase;
    case ClusterEvent::kAllReady:
      return phase == ClusterPhase::kStartingWorkers ? ClusterPhase::kServing : phase;
    case ClusterEvent::kStopAsked:
      if (phase == ClusterPhase::kStoppingRouter) return ClusterPhase::kStoppingWorkers;
      return phase < ClusterPhase::kStoppingRouter ? ClusterPhase::kStoppingRouter : phase;
    case ClusterEvent::kRouterEnded:
      return phase == ClusterPhase::kStoppingRouter ? ClusterPhase::kStoppingWorkers : phase;
    case ClusterEvent::kChildFailed:
      return phase < ClusterPhase::kStoppingWorkers ? ClusterPhase::kStoppingWorkers : phase;
    case ClusterEvent::kAllEnded:
      return phase == ClusterPhase::kStoppingWorkers ? ClusterPhase::kStopped : phase;
  }
  return phase;
}

LocalCluster::LocalCluster(ServeOptions options, service::Security security, std::string bin_dir, bool verbose)
    : options_(std::move(options)), security_(std::move(security)), bin_dir_(std::move(bin_dir)), verbose_(verbose) {}

LocalCluster::~LocalCluster() = default;

absl::Status LocalCluster::Start(const ChildPlan& plan) {
  ASSIGN_OR_RETURN(std::unique_ptr<ChildProcess> process,
                   ChildProcess::Start(plan.name, absl::StrCat(bin_dir_, "/", plan.program), plan.args));
  children_.push_back({.process = std::move(process)});
  return absl::OkStatus();
}

absl::Status LocalCluster::StartWorkers() {
  // A copy: starting more children moves the vector's elements.
  const std::string router = children_[0].address;
  for (const ChildPlan& plan : PlanWorkers(options_, ThisMachine(), router)) RETURN_IF_ERROR(Start(plan));
  return absl::OkStatus();
}

absl::Status LocalCluster::Run() {
  sigset_t wanted;
  sigemptyset(&wanted);
  for (int signal_number : {SIGINT, SIGTERM, SIGCHLD}) sigaddset(&wanted, signal_number);
  sigset_t before;
  pthread_sigmask(SIG_BLOCK, &wanted, &before);
  const int signals = signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK);
  absl::Status status = Start(PlanRouter(options_));
  while (status.ok() && phase_ != ClusterPhase::kStopped) status = Step(signals);
  client_.reset();
  children_.clear();  // kills what an error of our own left behind
  close(signals);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return status.ok() ? failure_ : status;
}

int LocalCluster::PollMilliseconds() const {
  if (phase_ == ClusterPhase::kStartingWorkers) return kAskMilliseconds;
  if (phase_ < ClusterPhase::kStoppingRouter) return -1;
  return static_cast<int>(std::clamp((kill_at_ - RealClock().Now()) * 1000, 0.0, 1e6)) + 1;
}

absl::Status LocalCluster::Step(int signals) {
  std::vector<pollfd> polled = {{signals, POLLIN, 0}};
  for (const Child& child : children_) {
    for (int fd : child.process->fds()) polled.push_back({fd, POLLIN, 0});
  }
  if (poll(polled.data(), polled.size(), PollMilliseconds()) < 0 && errno != EINTR) {
    return absl::ErrnoToStatus(errno, "poll");
  }
  const ClusterPhase before = phase_;
  for (Child& child : children_) {
    child.process->Read([&](const std::string& line, bool error) {
      if (verbose_) std::fprintf(stderr, "%s| %s\n", child.process->name().c_str(), line.c_str());
      if (!error) HandleLine(child, line);
    });
  }
  HandleSignals(signals);
  if (phase_ == ClusterPhase::kStartingWorkers && before == ClusterPhase::kStartingRouter) return StartWorkers();
  if (phase_ == ClusterPhase::kStartingWorkers && AllReady()) Happened(ClusterEvent::kAllReady);
  if (phase_ >= ClusterPhase::kStoppingRouter && RealClock().Now() >= kill_at_) {
    phase_ == ClusterPhase::kStoppingRouter ? children_[0].process->Signal(SIGKILL) : SignalAll(SIGKILL);
  }
  return absl::OkStatus();
}

void LocalCluster::HandleSignals(int signals) {
  signalfd_siginfo info;
  while (read(signals, &info, sizeof(info)) == sizeof(info)) {
    if (info.ssi_signo == SIGCHLD) continue;
    if (phase_ == ClusterPhase::kStoppingWorkers) kill_at_ = 0;
    Happened(ClusterEvent::kStopAsked);
  }
  ReapChildren();
}

void LocalCluster::HandleLine(Child& child, const std::string& line) {
  if (line.rfind("serving ", 0) != 0) return;
  child.address = ValueOf(line, "grpc");
  child.metrics_address = ValueOf(line, "metrics");
  if (&child == &children_[0]) Happened(ClusterEvent::kRouterServing);
}

void LocalCluster::ReapChildren() {
  bool running = false;
  for (size_t i = 0; i < children_.size(); ++i) {
    ChildProcess& process = *children_[i].process;
    if (std::optional<std::string> end = process.Reap()) {
      // Its last words may have arrived together with its end.
      process.Read([&](const std::string& line, bool) {
        if (verbose_) std::fprintf(stderr, "%s| %s\n", process.name().c_str(), line.c_str());
      });
      const bool told = phase_ == ClusterPhase::kStoppingWorkers || (phase_ == ClusterPhase::kStoppingRouter && i == 0);
      if (!told) {
        failure_ = absl::AbortedError(absl::StrCat(process.name(), " ", *end, LastWords(process)));
        Happened(ClusterEvent::kChildFailed);
      } else if (i == 0) {
        Happened(ClusterEvent::kRouterEnded);
      }
    }
    running |= process.running();
  }
  if (!running) Happened(ClusterEvent::kAllEnded);
}

void LocalCluster::Happened(ClusterEvent event) {
  const ClusterPhase next = NextPhase(phase_, event);
  if (next == phase_) return;
  const std::string change = absl::StrCat("cluster: ", ClusterPhaseName(phase_), " -> ", ClusterPhaseName(next));
  Log(LogLevel::kInfo, change);
  phase_ = next;
  EnterPhase();
}

void LocalCluster::EnterPhase() {
  if (phase_ == ClusterPhase::kServing) PrintReady();
  if (phase_ == ClusterPhase::kStoppingRouter) {
    children_[0].process->Signal(SIGTERM);
    kill_at_ = RealClock().Now() + options_.grace_seconds + kKillMarginSeconds;
  }
  if (phase_ == ClusterPhase::kStoppingWorkers) {
    SignalAll(SIGTERM);
    kill_at_ = RealClock().Now() + kKillMarginSeconds;
  }
}

void LocalCluster::SignalAll(int signal_number) {
  for (Child& child : children_) child.process->Signal(signal_number);
}

bool LocalCluster::AllReady() {
  // Connected only now: gRPC starts threads, and no child is started after them.
  if (!client_) {
    const service::TlsFiles& tls = security_.tls;
    absl::StatusOr<client::Client> connected =
        client::Client::Connect(OverLoopback(children_[0].address), {.tls_ca = tls.ca,
                                                                     .tls_cert = tls.cert,
                                                                     .tls_key = tls.key,
                                                                     .tls_server_name = tls.server_name,
                                                                     .cluster_token = security_.cluster_token,
                                                                     .connect_timeout = kAskPatience});
    if (!connected.ok()) return false;
    client_ = *std::move(connected);
  }
  absl::StatusOr<client::ClusterStatus> status = client_->GetStatus({.timeout = kAskPatience});
  if (!status.ok() || !status->ready) return false;
  const WorkerCounts wanted = PlanCounts(options_);
  // A prefill worker that has not met all others yet will be unready for a moment when it does.
  auto met_all = [&](const client::WorkerStatus& worker) {
    const auto links = std::count_if(worker.links.begin(), worker.links.end(),
                                     [](const client::LinkStatus& link) { return link.connected; });
    return worker.role != client::WorkerRole::kPrefill || links == wanted.prefill + wanted.decode - 1;
  };
  auto ready = [&](client::WorkerRole role) {
    return std::count_if(status->workers.begin(), status->workers.end(), [&](const client::WorkerStatus& worker) {
      return worker.role == role && worker.ready && met_all(worker);
    });
  };
  // A worker may register before this process has read its line.
  const bool addresses_known =
      std::all_of(children_.begin(), children_.end(), [](const Child& child) { return !child.address.empty(); });
  return addresses_known && ready(client::WorkerRole::kPrefill) == wanted.prefill &&
         ready(client::WorkerRole::kDecode) == wanted.decode;
}

void LocalCluster::PrintReady() const {
  for (const Child& child : children_) {
    std::printf("%s grpc=%s metrics=%s pid=%d\n", child.process->name().c_str(), child.address.c_str(),
                child.metrics_address.c_str(), child.process->pid());
  }
  std::printf("ready %s\n", children_[0].address.c_str());
  std::fflush(stdout);
}

}  // namespace salamander::cli
