#include "tests/testing/cluster.h"

#include <grpcpp/client_context.h>

#include <chrono>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/status_macros.h"
#include "common/service/channel.h"
#include "common/service/grpc_status.h"

namespace salamander::testing {
namespace {

constexpr auto kPollInterval = std::chrono::milliseconds(20);

// Asks until the answer is OK or time is up; then the last answer.
template <typename Ask>
absl::Status Poll(double seconds, Ask ask) {
  const double deadline = RealClock().Now() + seconds;
  for (;;) {
    const absl::Status status = ask();
    if (status.ok()) return status;
    if (RealClock().Now() > deadline) {
      return absl::DeadlineExceededError(absl::StrCat("after ", seconds, " s: ", status.message()));
    }
    std::this_thread::sleep_for(kPollInterval);
  }
}

absl::Status CompareLedgers(const std::map<std::string, Cluster::Ledger>& expected,
                            const std::map<std::string, Cluster::Ledger>& found) {
  for (const auto& [worker, ledger] : expected) {
    const auto other = found.find(worker);
    if (other == found.end()) return absl::InternalError(absl::StrCat("worker ", worker, " is gone"));
    for (const auto& [owner, bytes] : ledger) {
      const auto now = other->second.find(owner);
      if (now == other->second.end() || now->second != bytes) {
        return absl::InternalError(absl::StrCat(worker, " has ", owner, " = ",
                                                now == other->second.end() ? -1 : now->second, ", expected ", bytes));
      }
    }
  }
  if (expected.size() != found.size()) return absl::InternalError("there are other workers than expected");
  return absl::OkStatus();
}

}  // namespace

void Cluster::ConnectRouter(int router, const std::string& address, const service::ChannelSecurity& security) {
  const auto channel = service::MakeChannel(address, security);
  stubs_[router] = {v1::Inference::NewStub(channel), v1::Cluster::NewStub(channel)};
}

absl::StatusOr<v1::GetStatusResponse> Cluster::Status(int router) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  v1::GetStatusResponse response;
  RETURN_IF_ERROR(service::FromGrpc(stubs_.at(router).cluster->GetStatus(&context, {}, &response)));
  return response;
}

absl::Status Cluster::CheckReady(int router) {
  ASSIGN_OR_RETURN(const v1::GetStatusResponse status, Status(router));
  if (!status.ready()) return absl::InternalError(absl::StrCat("router ", router, " is not ready"));
  if (status.workers_size() != live_workers()) {
    return absl::InternalError(
        absl::StrCat("router ", router, " knows ", status.workers_size(), " workers of ", live_workers()));
  }
  for (const v1::WorkerStatus& worker : status.workers()) {
    if (!worker.last().ready()) return absl::InternalError(absl::StrCat(worker.name(), " is not ready"));
    const bool prefill = worker.role() == v1::WORKER_ROLE_PREFILL;
    if (prefill && worker.last().links_size() < live_workers() - 1) {
      return absl::InternalError(absl::StrCat(worker.name(), " has ", worker.last().links_size(), " links"));
    }
    for (const v1::LinkStatus& link : worker.last().links()) {
      if (!link.connected()) {
        return absl::InternalError(absl::StrCat(worker.name(), " has no link to ", link.peer_name(), link.error()));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status Cluster::WaitReady(double seconds) {
  return Poll(seconds, [this] {
    for (int router = 0; router < live_routers(); ++router) RETURN_IF_ERROR(CheckReady(router));
    return absl::OkStatus();
  });
}

absl::StatusOr<std::map<std::string, Cluster::Ledger>> Cluster::IdleLedgers(double seconds) {
  std::map<std::string, Ledger> idle;
  RETURN_IF_ERROR(Poll(seconds, [&]() -> absl::Status {
    ASSIGN_OR_RETURN(idle, Ledgers());
    for (const auto& [worker, ledger] : idle) {
      for (const char* owner : {"pages", "states", "in_transfer"}) {
        if (ledger.at(owner) != 0) return absl::InternalError(absl::StrCat(worker, " holds ", owner));
      }
    }
    return absl::OkStatus();
  }));
  return idle;
}

absl::Status Cluster::WaitForLedgers(const std::map<std::string, Ledger>& expected, double seconds) {
  return Poll(seconds, [&] {
    const auto found = Ledgers();
    return found.ok() ? CompareLedgers(expected, *found) : found.status();
  });
}

}  // namespace salamander::testing
