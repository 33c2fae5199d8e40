#include "router/model_info.h"

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/model/checkpoint.h"
#include "common/model/config.h"
#include "common/model/read_file.h"
#include "router/validate.h"

namespace salamander::router {
namespace {

bool Exists(const std::string& folder, const std::string& file) {
  std::error_code ignored;  // A folder that cannot be read has no such file; reading config.json tells why.
  return std::filesystem::exists(std::filesystem::path(folder) / file, ignored);
}

void Fill(const model::Config& config, ModelInfo* info) {
  info->vocab_size = config.vocab_size;
  info->max_position_embeddings = config.max_position_embeddings;
  info->eos_token_ids = config.eos_token_ids;
}

}  // namespace

absl::StatusOr<ModelInfo> LoadModelInfo(const std::string& folder, model::LoadFormat format) {
  ModelInfo info;
  if (format == model::LoadFormat::kDummy || Exists(folder, "model.safetensors") ||
      Exists(folder, "model.safetensors.index.json")) {
    ASSIGN_OR_RETURN(const auto checkpoint, model::Checkpoint::Open(folder, format));
    Fill(checkpoint->config(), &info);
    info.fingerprint = checkpoint->fingerprint();
  } else {
    const std::string path = folder + "/config.json";
    ASSIGN_OR_RETURN(const std::string text, model::ReadFile(path));
    auto config = model::ParseConfig(text);
    if (!config.ok()) return Annotate(config.status(), path);
    Fill(*config, &info);
  }
  std::filesystem::path path(folder);
  if (!path.has_filename()) path = path.parent_path();  // "folder/"
  info.name = path.filename().string();
  if (Exists(folder, "tokenizer.model")) {
    ASSIGN_OR_RETURN(info.tokenizer, model::Tokenizer::Load(folder));
  }
  return info;
}

absl::StatusOr<std::vector<int32_t>> PromptTokens(const v1::Prompt& prompt, const ModelInfo& model) {
  RETURN_IF_ERROR(CheckPrompt(prompt, model.vocab_size));
  if (prompt.has_tokens()) return std::vector<int32_t>(prompt.tokens().ids().begin(), prompt.tokens().ids().end());
  if (model.tokenizer == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("prompt must be tokens, got ", prompt.has_text() ? "text" : "chat",
                                                   ": model ", model.name, " has no tokenizer"));
  }
  if (prompt.has_text()) return model.tokenizer->EncodeText(prompt.text());
  std::vector<model::ChatTurn> turns;
  for (const v1::ChatMessage& message : prompt.chat().messages()) {
    turns.push_back({.role = message.role(), .content = message.content()});
  }
  return model.tokenizer->EncodeChat(turns);
}

}  // namespace salamander::router
