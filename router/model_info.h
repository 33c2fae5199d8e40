// What the router needs to know of the model: everything but the weights.
#ifndef SALAMANDER_ROUTER_MODEL_INFO_H_
#define SALAMANDER_ROUTER_MODEL_INFO_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/model/checkpoint.h"
#include "common/model/tokenizer.h"
#include "salamander/v1/inference.pb.h"

namespace salamander::router {

struct ModelInfo {
  std::string name;
  // Empty if the folder has no weights: then the workers' is taken.
  std::string fingerprint;
  int64_t vocab_size = 0;
  int64_t max_position_embeddings = 0;
  std::vector<int32_t> eos_token_ids;
  // Null if the folder has none: then prompts are token ids.
  std::unique_ptr<model::Tokenizer> tokenizer;
};

// Reads config.json and, where they exist, tokenizer.model and the headers of the weights (of a dummy none). A file
// that exists and is faulty is an error.
absl::StatusOr<ModelInfo> LoadModelInfo(const std::string& folder,
                                        model::LoadFormat format = model::LoadFormat::kSafetensors);

// The token ids of a prompt, after CheckPrompt (validate.h). Tokenizing a long text takes seconds: for the text pool.
absl::StatusOr<std::vector<int32_t>> PromptTokens(const v1::Prompt& prompt, const ModelInfo& model);

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_MODEL_INFO_H_
