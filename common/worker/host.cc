#include "common/worker/host.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/service/version.h"
#include "common/stream/item.h"
#include "common/transport/ucx_transport.h"
#include "common/worker/stream_metrics.h"

namespace salamander::worker {

absl::StatusOr<std::unique_ptr<Host>> Host::Create(const service::WorkerOptions& options, v1::WorkerRole role,
                                                   std::shared_ptr<Device> device,
                                                   std::unique_ptr<transport::Transport> given) {
  if (options.transfer_buffer_bytes < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("transfer_buffer_bytes must be above 0, got ", options.transfer_buffer_bytes));
  }
  auto host = std::make_unique<Host>();
  host->instance = RandomId();
  host->options = options;
  host->name = options.name.empty() ? absl::StrCat(RoleName(role), "-", IdToString(host->instance)) : options.name;

  host->device = std::move(device);
  ASSIGN_OR_RETURN(host->queue, host->device->NewQueue());
  host->stats = std::make_unique<stream::StreamStats>();
  host->metrics = std::make_unique<service::Metrics>(RoleName(role) + "_worker");
  // On one page only where two roles share a device, so that sums over pages are right.
  if (host->queue.own == nullptr) host->metrics->ExportLedger(&host->ledger());
  ExportStreamStats(*host->stats, MetricsPrefix(role), host->metrics.get());

  if (given != nullptr) {
    host->transport = std::move(given);
  } else {
    ASSIGN_OR_RETURN(host->transport, transport::CreateUcxTransport({.transports = options.ucx_transports,
                                                                     .net_devices = options.ucx_net_devices}));
  }
  host->receiver =
      std::make_unique<stream::Receiver>(stream::ReceiverOptions{.instance = host->instance,
                                                                 .staging_bytes = options.transfer_buffer_bytes,
                                                                 .missing_item_seconds = options.missing_item_seconds},
                                         host->transport.get(), &host->ledger(), host->stats.get());
  Log(LogLevel::kInfo, absl::StrCat("worker ", host->name, ": model ", host->device->checkpoint().name(), " (",
                                    host->model().fingerprint(), ") on ", host->ops().name(), ", transport ",
                                    host->transport->name(), ", memory ", host->ledger().Read().capacity, " bytes"));
  return host;
}

absl::Status Host::ReportFailure(const absl::Status& status) const {
  if (ops().host_memory() || !absl::IsInternal(status)) return status;
  if (options.on_fatal) options.on_fatal(status);
  return absl::UnavailableError(status.message());
}

v1::WorkerHello Host::Hello(const std::string& grpc_address) const {
  v1::WorkerHello hello;
  hello.set_name(name);
  hello.set_instance_id(instance);
  hello.set_grpc_address(options.advertise.empty() ? grpc_address : options.advertise);
  hello.set_transport_address(transport->address());
  hello.set_transport_name(transport->name());
  hello.set_model_fingerprint(model().fingerprint());
  hello.set_kv_element_type(model().sparse_shape().kv.type == kernels::DType::kFloat32 ? v1::ELEMENT_TYPE_FLOAT32
                                                                                       : v1::ELEMENT_TYPE_BFLOAT16);
  hello.set_build_version(service::BuildVersion());
  hello.set_page_group_bytes(PageGroupBytes(model()));
  hello.set_bytes_per_request(FixedBytes(model()));
  hello.set_stream_version(stream::kStreamVersion);
  return hello;
}

std::string RoleName(v1::WorkerRole role) { return role == v1::WORKER_ROLE_PREFILL ? "prefill" : "decode"; }

std::string MetricsPrefix(v1::WorkerRole role) { return absl::StrCat("salamander_", RoleName(role), "_"); }

void ReportMemory(const MemoryLedger& ledger, v1::Heartbeat& heartbeat) {
  const MemoryLedger::Snapshot now = ledger.Read();
  heartbeat.set_memory_capacity_bytes(now.capacity);
  for (int i = 0; i < kMemoryOwners; ++i) {
    v1::MemoryOwner& owner = *heartbeat.add_memory();
    owner.set_owner(std::string(MemoryOwnerName(static_cast<MemoryOwner>(i))));
    owner.set_bytes(now.held[i]);
  }
}

int64_t PageGroupBytes(const engine::Model& model) {
  return model.SequenceBytes(2 * kernels::kPageTokens) - model.SequenceBytes(kernels::kPageTokens);
}

int64_t FixedBytes(const engine::Model& model) {
  return model.SequenceBytes(kernels::kPageTokens) - PageGroupBytes(model);
}

}  // namespace salamander::worker
