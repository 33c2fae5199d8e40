// A checkpoint in this process, answering requests one at a time with the same events as a router: the yardstick for
// "how the prompt is split does not matter".
#ifndef SALAMANDER_CLIENTS_CLI_LOCAL_MODEL_H_
#define SALAMANDER_CLIENTS_CLI_LOCAL_MODEL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "clients/cli/loaded_model.h"
#include "clients/cpp/types.h"
#include "common/engine/local_session.h"
#include "common/model/tokenizer.h"

namespace salamander::cli {

struct LocalModelOptions {
  ModelOptions model;
  int64_t span_tokens = 8192;
};

class LocalModel {
 public:
  static absl::StatusOr<std::unique_ptr<LocalModel>> Load(const LocalModelOptions& options);

  // Blocks; `on_event` runs on this thread. `go_on` is asked after every span and token; an error from it ends the
  // request with that error. Bad requests get the router's code and wording: INVALID_ARGUMENT naming field, value and
  // limit. Without a seed one is drawn, and told in Finished.
  absl::Status Generate(const client::GenerateRequest& request, const std::function<absl::Status()>& go_on,
                        const std::function<void(const client::Event&)>& on_event);

 private:
  LocalModel() = default;
  const model::Config& config() const { return loaded_->model->config(); }
  absl::StatusOr<std::vector<int32_t>> PromptTokens(const client::Prompt& prompt) const;
  absl::StatusOr<engine::GenerationOptions> Options(const client::GenerateRequest& request,
                                                    int64_t prompt_tokens) const;
  client::Finished Finish(int64_t prompt_tokens, int64_t completion_tokens, engine::StopReason reason, uint64_t seed,
                          const engine::LocalTiming& timing) const;

  // In order of destruction's reverse: each holds pointers into those above it.
  int64_t span_tokens_ = 0;
  std::unique_ptr<model::Tokenizer> tokenizer_;  // null: the checkpoint has none
  std::unique_ptr<LoadedModel> loaded_;
  std::unique_ptr<engine::LocalSession> session_;
};

}  // namespace salamander::cli

#endif  // SALAMANDER_CLIENTS_CLI_LOCAL_MODEL_H_
