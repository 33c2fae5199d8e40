#include "clients/cli/request_flags.h"

#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace salamander::cli {
namespace {

// "-" is standard input.
absl::StatusOr<std::string> ReadWhole(const std::string& path) {
  auto fail = [&] {
    return absl::InvalidArgumentError(absl::StrCat("cannot read '", path, "': ", std::strerror(errno)));
  };
  std::unique_ptr<FILE, int (*)(FILE*)> opened(nullptr, std::fclose);
  FILE* file = stdin;
  if (path != "-") {
    opened.reset(std::fopen(path.c_str(), "rb"));
    file = opened.get();
    if (file == nullptr) return fail();
  }
  std::string content;
  char buffer[1 << 16];
  while (size_t count = std::fread(buffer, 1, sizeof(buffer), file)) content.append(buffer, count);
  if (std::ferror(file)) return fail();
  return content;
}

std::optional<int32_t> ToInt32(const nlohmann::json& element) {
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  // A number past int64 is stored as unsigned and would wrap.
  if (element.is_number_unsigned() && element.get<uint64_t>() > kMax) return std::nullopt;
  if (!element.is_number_integer()) return std::nullopt;
  const int64_t id = element.get<int64_t>();
  if (id < std::numeric_limits<int32_t>::min() || id > kMax) return std::nullopt;
  return static_cast<int32_t>(id);
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> ParseTokenIds(const std::string& json) {
  const auto parsed = nlohmann::json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_array()) return absl::InvalidArgumentError("must be a JSON array of token ids");
  std::vector<int32_t> ids;
  ids.reserve(parsed.size());
  for (const auto& element : parsed) {
    const std::optional<int32_t> id = ToInt32(element);
    if (!id) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", ids.size(), " must be a 32-bit integer, got ", element.dump()));
    }
    ids.push_back(*id);
  }
  return ids;
}

void PromptFlags::AddTo(FlagSet& flags) {
  flags.Add("prompt", &prompt, "the prompt's text");
  flags.Add("prompt_file", &prompt_file, "file with the prompt's text; - is standard input");
  flags.Add("prompt_tokens", &prompt_tokens, "file with a JSON array of token ids, used as they are");
  flags.Add("chat", &chat, "send the text as a user's message, through the model's chat template");
}

absl::StatusOr<client::Prompt> PromptFlags::Read() const {
  if (prompt.has_value() + prompt_file.has_value() + prompt_tokens.has_value() != 1) {
    return absl::InvalidArgumentError("exactly one of --prompt, --prompt_file and --prompt_tokens must be given");
  }
  if (prompt_tokens) {
    if (chat) return absl::InvalidArgumentError("--chat needs text, --prompt_tokens gives token ids");
    absl::StatusOr<std::string> content = ReadWhole(*prompt_tokens);
    if (!content.ok()) return Annotate(content.status(), "--prompt_tokens");
    absl::StatusOr<std::vector<int32_t>> ids = ParseTokenIds(*content);
    if (!ids.ok()) return Annotate(ids.status(), absl::StrCat("--prompt_tokens ", *prompt_tokens));
    return *std::move(ids);
  }
  absl::StatusOr<std::string> text = prompt ? *prompt : ReadWhole(*prompt_file);
  if (!text.ok()) return Annotate(text.status(), "--prompt_file");
  if (chat) return client::Chat{{.role = "user", .content = *std::move(text)}};
  return *std::move(text);
}

void SamplingFlags::AddTo(FlagSet& flags) {
  client::SamplingOptions& sampling = options.sampling;
  flags.Add("max_tokens", &options.max_tokens, "tokens to generate at most (default: the router's)");
  flags.Add("temperature", &sampling.temperature, "0 is greedy (default 1)");
  flags.Add("top_p", &sampling.top_p, "keep the likeliest tokens of this total probability (default 1)");
  flags.Add("top_k", &sampling.top_k, "keep this many likeliest tokens; 0 keeps all (default 0)");
  flags.Add("min_p", &sampling.min_p, "drop tokens less likely than this times the likeliest (default 0)");
  flags.Add("repetition_penalty", &sampling.repetition_penalty, "for tokens of prompt and output (default 1)");
  flags.Add("presence_penalty", &sampling.presence_penalty, "for tokens of the output, once (default 0)");
  flags.Add("frequency_penalty", &sampling.frequency_penalty, "for tokens of the output, times count (default 0)");
  flags.Add("seed", &sampling.seed, "same seed and prompt, same tokens (default: random)");
  flags.Add("stop", &stop, "stop before this text; may be given several times");
  flags.Add("stop_token", &stop_token, "stop at this token id; may be given several times");
  flags.Add("ignore_eos", &options.ignore_eos, "go on after the model's end-of-text tokens");
  flags.Add("logprobs", &options.logprobs, "tell log-probabilities, and those of this many likeliest tokens");
  flags.Add("priority", &options.priority, "higher goes first, -100 to 100 (default 0)");
  flags.Add("deadline", &deadline, "give up after this many seconds, or 1m30s (default: never)");
}

void SamplingFlags::Apply(client::GenerateRequest& request) const {
  client::Prompt prompt = std::move(request.prompt);
  request = options;
  request.prompt = std::move(prompt);
  for (const std::string& text : stop) request.stop.emplace_back(text);
  for (int32_t token : stop_token) request.stop.emplace_back(token);
}

void RequestFlags::AddTo(FlagSet& flags) {
  prompt.AddTo(flags);
  sampling.AddTo(flags);
  flags.Add("json", &json, "print one JSON object at the end instead of streaming text");
}

absl::StatusOr<client::GenerateRequest> RequestFlags::Read() const {
  client::GenerateRequest request;
  ASSIGN_OR_RETURN(request.prompt, prompt.Read());
  sampling.Apply(request);
  return request;
}

}  // namespace salamander::cli
