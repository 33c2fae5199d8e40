#include "clients/cli/loaded_model.h"

#include "clients/cli/serve_plan.h"
#include "common/base/status_macros.h"
#include "kernels/device.h"

namespace salamander::cli {
namespace {

absl::StatusOr<int64_t> MemoryFor(const ModelOptions& options, const Machine& machine, kernels::Ops& ops) {
  if (options.memory_bytes > 0) return options.memory_bytes;
  if (ops.host_memory()) return PlanMemory(machine.memory_bytes, 1);
  ASSIGN_OR_RETURN(const int64_t free, ops.MemoryBytes());
  return ops.own_bytes() + free / 10 * 9;
}

}  // namespace

void ModelOptions::AddTo(FlagSet& flags) {
  flags.Add("model", &model, "checkpoint folder: config.json, *.safetensors and tokenizer.model");
  flags.Add("load_format", &load_format, "safetensors (default), or dummy: made-up weights for a config.json alone");
  flags.Add("device", &device, "cpu (default), cuda or cuda:N");
  flags.Add("threads", &threads, "threads that compute on a CPU (default: the cores)");
  flags.Add("memory_bytes", &memory_bytes,
            "memory it may use (default: 80% of the machine's, or 90% of what the GPU has free)");
}

absl::StatusOr<std::unique_ptr<LoadedModel>> LoadedModel::Load(const ModelOptions& options) {
  const Machine machine = ThisMachine();
  auto loaded = std::make_unique<LoadedModel>();
  ASSIGN_OR_RETURN(const kernels::DeviceSpec device, kernels::ParseDevice(options.device));
  ASSIGN_OR_RETURN(const model::LoadFormat format, model::ParseLoadFormat(options.load_format));
  ASSIGN_OR_RETURN(loaded->checkpoint, model::Checkpoint::Open(options.model, format));
  const int threads = options.threads > 0 ? options.threads : static_cast<int>(machine.cores);
  ASSIGN_OR_RETURN(loaded->ops, kernels::CreateOps(device, threads));
  ASSIGN_OR_RETURN(const int64_t memory, MemoryFor(options, machine, *loaded->ops));
  loaded->ledger = std::make_unique<MemoryLedger>(memory);
  ASSIGN_OR_RETURN(loaded->own_memory, loaded->ledger->Take(MemoryOwner::kWorkspace, loaded->ops->own_bytes()));
  ASSIGN_OR_RETURN(loaded->model, engine::Model::Load(*loaded->checkpoint, loaded->ops.get(), loaded->ledger.get()));
  return loaded;
}

}  // namespace salamander::cli
