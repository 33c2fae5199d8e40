// A checkpoint on a device of this process, for the commands that compute themselves.
#ifndef SALAMANDER_CLIENTS_CLI_LOADED_MODEL_H_
#define SALAMANDER_CLIENTS_CLI_LOADED_MODEL_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "clients/cli/flags.h"
#include "common/base/memory_ledger.h"
#include "common/engine/model.h"
#include "common/model/checkpoint.h"
#include "kernels/ops.h"

namespace salamander::cli {

struct ModelOptions {
  std::string model;  // checkpoint folder
  std::string load_format = "safetensors";
  std::string device = "cpu";
  int32_t threads = 0;       // 0: the machine's cores
  int64_t memory_bytes = 0;  // 0: 80% of the machine's memory, 90% of what a GPU has free

  void AddTo(FlagSet& flags);
};

// In order of construction; destroyed in reverse.
struct LoadedModel {
  std::unique_ptr<model::Checkpoint> checkpoint;
  std::unique_ptr<kernels::Ops> ops;
  std::unique_ptr<MemoryLedger> ledger;
  MemoryLedger::Hold own_memory;  // of the backend
  std::unique_ptr<engine::Model> model;

  static absl::StatusOr<std::unique_ptr<LoadedModel>> Load(const ModelOptions& options);
};

}  // namespace salamander::cli

#endif  // SALAMANDER_CLIENTS_CLI_LOADED_MODEL_H_
