// A cluster in one process, over a network that makes faults on command, with a client that keeps sending it requests:
// what the tests of alerts watch. Prints "NAME metrics=HOST:PORT" for each of its processes' roles, then "ready"; reads
// commands, one a line, and prints "done" after each, until its input ends:
//
//   faults on   items are corrupted, or come late, as --fault says; `faults off` ends it
//   forge       an item without its reservation's secret is sent to the decode worker
//   break       the decode worker's links break, and cannot be made again
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <functional>
#include <future>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/service/channel.h"
#include "common/stream/item.h"
#include "tests/testing/golden.h"
#include "tests/testing/in_process_cluster.h"

namespace salamander::testing {
namespace {

// Longer than a prefill of the golden case by far, so that a late item is what the first token waits for.
constexpr double kLateSeconds = 0.5;
constexpr auto kPause = std::chrono::milliseconds(20);

absl::StatusOr<transport::FakeFaults> ParseFault(const std::string& flag) {
  if (flag == "--fault=corrupt") return transport::FakeFaults{.corrupt = 1};
  if (flag == "--fault=late") return transport::FakeFaults{.delay = 1, .max_delay_seconds = kLateSeconds};
  return absl::InvalidArgumentError(absl::StrCat("--fault must be corrupt or late, got \"", flag, "\""));
}

class FaultyCluster {
 public:
  absl::Status Start(transport::FakeFaults faults) {
    faults.only = [this](std::string_view header) {
      v1::ItemHeader item;
      return faulty_ && item.ParseFromArray(header.data(), static_cast<int>(header.size()));
    };
    ASSIGN_OR_RETURN(
        cluster_,
        InProcessCluster::Start({.model = golden_.folder, .heartbeat_seconds = 1, .metrics = true}, std::move(faults)));
    ASSIGN_OR_RETURN(const v1::GetStatusResponse status, cluster_->Status());
    for (const v1::WorkerStatus& worker : status.workers()) {
      if (worker.role() == v1::WORKER_ROLE_DECODE) decode_ = worker;
    }
    client_ = std::thread([this] {
      while (!stop_) {
        cluster_->Generate(golden_.Request(false));  // It fails while there are faults.
        std::this_thread::sleep_for(kPause);
      }
    });
    std::printf("router-0 metrics=%s\n", cluster_->router().metrics_address().c_str());
    for (int i = 0; i < 2; ++i)
      std::printf("prefill-%d metrics=%s\n", i, cluster_->prefill(i).metrics_address().c_str());
    std::printf("decode-0 metrics=%s\nready\n", cluster_->decode(0).metrics_address().c_str());
    return absl::OkStatus();
  }

  ~FaultyCluster() {
    stop_ = true;
    if (client_.joinable()) client_.join();
  }

  absl::Status Do(const std::string& command) {
    if (command == "faults on" || command == "faults off") {
      faulty_ = command == "faults on";
    } else if (command == "forge") {
      return Forge();
    } else if (command == "break") {
      cluster_->network().Kill(DecodeTransport());
    } else {
      return absl::InvalidArgumentError(absl::StrCat("unknown command \"", command, "\""));
    }
    return absl::OkStatus();
  }

 private:
  // The network counts its addresses from 1, in the order of the workers' start: prefill workers, then decode workers.
  static std::string DecodeTransport() { return "fake:3"; }

  // Reserves as the router does, and sends a hidden row with everything right but the secret.
  absl::Status Forge() {
    v1::ReserveRequest reserve;
    reserve.set_request_id(1);
    v1::Plan& plan = *reserve.mutable_plan();
    plan.set_prompt_tokens(128);
    plan.set_codec(v1::CODEC_RAW);
    plan.add_spans()->set_end(128);
    plan.add_prefill_workers()->set_instance_id(1);
    plan.mutable_decode_worker()->set_instance_id(decode_.instance_id());
    reserve.set_total_tokens(160);
    reserve.set_lease_seconds(1);
    v1::ReserveResponse reservation;
    grpc::ClientContext context;
    const grpc::Status reserved = v1::DecodeWorker::NewStub(service::MakeChannel(decode_.grpc_address()))
                                      ->Reserve(&context, reserve, &reservation);
    if (!reserved.ok()) return absl::InternalError(reserved.error_message());

    const std::vector<std::byte> row(sizeof(float));
    v1::ItemHeader header;
    header.set_request_id(1);
    header.set_receiver_instance(decode_.instance_id());
    header.set_epoch(reservation.epoch());
    header.set_secret(std::string(stream::kStreamSecretBytes, '\0'));
    header.set_kind(v1::ITEM_KIND_HIDDEN);
    header.set_codec(v1::CODEC_RAW);
    header.set_raw_bytes(row.size());
    header.set_encoded_bytes(row.size());
    const auto forger = cluster_->network().CreateTransport();
    ASSIGN_OR_RETURN(const auto link, forger->Connect(DecodeTransport()));
    std::promise<absl::Status> sent;
    link->Send(header.SerializeAsString(), row, [&sent](absl::Status status) { sent.set_value(std::move(status)); });
    return sent.get_future().get();
  }

  const Golden golden_{"dense"};
  std::atomic<bool> faulty_{false}, stop_{false};
  std::unique_ptr<InProcessCluster> cluster_;
  v1::WorkerStatus decode_;
  std::thread client_;
};

absl::Status Run(const std::string& flag) {
  ASSIGN_OR_RETURN(transport::FakeFaults faults, ParseFault(flag));
  FaultyCluster cluster;
  RETURN_IF_ERROR(cluster.Start(std::move(faults)));
  std::fflush(stdout);
  for (std::string command; std::getline(std::cin, command);) {
    RETURN_IF_ERROR(cluster.Do(command));
    std::puts("done");
    std::fflush(stdout);
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace salamander::testing

int main(int argc, char** argv) {
  salamander::InitLog("faulty_cluster", salamander::LogLevel::kError);
  const absl::Status status = salamander::testing::Run(argc == 2 ? argv[1] : "");
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}
