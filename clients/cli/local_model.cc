#include "clients/cli/local_model.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/status_macros.h"

namespace salamander::cli {
namespace {

// The router's own limits and defaults, so that a request means the same in both.
constexpr int64_t kDefaultMaxTokens = 256;
constexpr int32_t kMaxLogprobs = 20;
constexpr size_t kMaxStopTextBytes = 256;

constexpr char kWorkerName[] = "local";

absl::Status CheckToken(const std::string& field, int32_t token, int64_t vocab_size) {
  if (token >= 0 && token < vocab_size) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, " must be a token id in [0, ", vocab_size, "), got ", token));
}

absl::Status TakeStop(const client::StopCondition& stop, size_t index, int64_t vocab_size,
                      engine::GenerationOptions& options) {
  const std::string field = absl::StrCat("stop[", index, "]");
  if (const auto* token = std::get_if<int32_t>(&stop)) {
    options.stop_token_ids.push_back(*token);
    return CheckToken(field + ".token_id", *token, vocab_size);
  }
  const std::string& text = std::get<std::string>(stop);
  options.stop_texts.push_back(text);
  if (!text.empty() && text.size() <= kMaxStopTextBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, ".text must be 1 to ", kMaxStopTextBytes, " bytes, got ", text.size()));
}

engine::SamplingParams Sampling(const client::SamplingOptions& from) {
  engine::SamplingParams to;
  to.temperature = from.temperature.value_or(to.temperature);
  to.top_p = from.top_p.value_or(to.top_p);
  to.top_k = from.top_k.value_or(to.top_k);
  to.min_p = from.min_p.value_or(to.min_p);
  to.repetition_penalty = from.repetition_penalty.value_or(to.repetition_penalty);
  to.presence_penalty = from.presence_penalty.value_or(to.presence_penalty);
  to.frequency_penalty = from.frequency_penalty.value_or(to.frequency_penalty);
  to.logit_bias.assign(from.logit_bias.begin(), from.logit_bias.end());
  to.seed = from.seed ? *from.seed : RandomId();
  return to;
}

client::TokenChunk ToChunk(const engine::GeneratedToken& token) {
  client::TokenChunk chunk{.ids = {token.token}, .text = token.text};
  if (!token.logprobs) return chunk;
  client::TokenLogprob& told = chunk.logprobs.emplace_back();
  told.token = token.token;
  told.logprob = token.logprobs->chosen;
  for (const auto& [id, logprob] : token.logprobs->top) told.top.push_back({id, logprob});
  return chunk;
}

client::Progress ToProgress(int64_t done, int64_t total, double seconds) {
  const double rate = seconds > 0 ? static_cast<double>(done) / seconds : 0;
  return {.prompt_tokens = total,
          .prefilled_tokens = done,
          .tokens_per_second = rate,
          .seconds_left = rate > 0 ? static_cast<double>(total - done) / rate : 0};
}

}  // namespace

absl::StatusOr<std::unique_ptr<LocalModel>> LocalModel::Load(const LocalModelOptions& options) {
  std::unique_ptr<LocalModel> local(new LocalModel());
  local->span_tokens_ = options.span_tokens;
  absl::StatusOr<std::unique_ptr<model::Tokenizer>> tokenizer = model::Tokenizer::Load(options.model.model);
  if (tokenizer.ok()) local->tokenizer_ = *std::move(tokenizer);
  if (!tokenizer.ok() && !absl::IsNotFound(tokenizer.status())) return tokenizer.status();
  ASSIGN_OR_RETURN(local->loaded_, LoadedModel::Load(options.model));
  ASSIGN_OR_RETURN(local->session_, engine::LocalSession::Create(local->loaded_->model.get(),
                                                                 local->loaded_->ledger.get(), options.span_tokens));
  return local;
}

absl::StatusOr<std::vector<int32_t>> LocalModel::PromptTokens(const client::Prompt& prompt) const {
  if (const auto* tokens = std::get_if<client::TokenIds>(&prompt)) {
    if (tokens->empty()) return absl::InvalidArgumentError("prompt.tokens must not be empty, got 0 ids");
    for (size_t i = 0; i < tokens->size(); ++i) {
      RETURN_IF_ERROR(CheckToken(absl::StrCat("prompt.tokens.ids[", i, "]"), (*tokens)[i], config().vocab_size));
    }
    return *tokens;
  }
  if (tokenizer_ == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("prompt must be tokens, got ",
                                                   std::holds_alternative<client::Text>(prompt) ? "text" : "chat",
                                                   ": model ", loaded_->checkpoint->name(), " has no tokenizer"));
  }
  if (const auto* text = std::get_if<client::Text>(&prompt)) {
    if (text->empty()) return absl::InvalidArgumentError("prompt.text must not be empty, got 0 bytes");
    return tokenizer_->EncodeText(*text);
  }
  std::vector<model::ChatTurn> turns;
  for (const client::ChatMessage& message : std::get<client::Chat>(prompt)) {
    turns.push_back({message.role, message.content});
  }
  return tokenizer_->EncodeChat(turns);
}

absl::StatusOr<engine::GenerationOptions> LocalModel::Options(const client::GenerateRequest& request,
                                                              int64_t prompt_tokens) const {
  const int64_t vocab_size = config().vocab_size;
  const int64_t limit = std::max(config().max_position_embeddings, model::kMaxTotalTokens);
  const int64_t left = limit - prompt_tokens;
  engine::GenerationOptions options;
  options.sampling = Sampling(request.sampling);
  options.max_tokens = request.max_tokens.value_or(std::min(kDefaultMaxTokens, left));
  options.ignore_eos = request.ignore_eos;
  options.logprobs = request.logprobs.value_or(-1);
  RETURN_IF_ERROR(engine::CheckSamplingParams(options.sampling, vocab_size));
  for (size_t i = 0; i < request.stop.size(); ++i) {
    RETURN_IF_ERROR(TakeStop(request.stop[i], i, vocab_size, options));
  }
  if (request.logprobs && (*request.logprobs < 0 || *request.logprobs > kMaxLogprobs)) {
    return absl::InvalidArgumentError(
        absl::StrCat("logprobs must be in [0, ", kMaxLogprobs, "], got ", *request.logprobs));
  }
  if (left < 1 || options.max_tokens > left) {
    return absl::InvalidArgumentError(absl::StrCat("prompt + max_tokens must be at most ", limit,
                                                   " tokens, got a prompt of ", prompt_tokens, " and max_tokens ",
                                                   options.max_tokens));
  }
  return options;
}

client::Finished LocalModel::Finish(int64_t prompt_tokens, int64_t completion_tokens, engine::StopReason reason,
                                    uint64_t seed, const engine::LocalTiming& timing) const {
  client::Finished finished;
  finished.reason = reason == engine::StopReason::kLength ? client::FinishReason::kLength : client::FinishReason::kStop;
  finished.usage = {prompt_tokens, completion_tokens};
  finished.timing.prefill = timing.prefill_seconds;
  finished.timing.first_step = timing.first_step_seconds;
  finished.timing.ttft = timing.prefill_seconds + timing.first_step_seconds;
  if (completion_tokens > 1 && timing.decode_seconds > 0) {
    finished.timing.tokens_per_second = static_cast<double>(completion_tokens - 1) / timing.decode_seconds;
  }
  for (int64_t begin = 0; begin < prompt_tokens; begin += span_tokens_) {
    finished.spans.push_back({begin, std::min(begin + span_tokens_, prompt_tokens), kWorkerName});
  }
  finished.decode_worker = kWorkerName;
  finished.seed = seed;
  return finished;
}

absl::Status LocalModel::Generate(const client::GenerateRequest& request, const std::function<absl::Status()>& go_on,
                                  const std::function<void(const client::Event&)>& on_event) {
  ASSIGN_OR_RETURN(const std::vector<int32_t> prompt, PromptTokens(request.prompt));
  const auto prompt_tokens = static_cast<int64_t>(prompt.size());
  ASSIGN_OR_RETURN(const engine::GenerationOptions options, Options(request, prompt_tokens));
  on_event(client::Accepted{IdToString(RandomId()), prompt_tokens});

  absl::Status stopped;
  int64_t completion_tokens = 0;
  engine::StopReason reason = engine::StopReason::kNone;
  const double start = RealClock().Now();
  auto on_progress = [&](int64_t done) {
    on_event(ToProgress(done, prompt_tokens, RealClock().Now() - start));
    stopped = go_on();
    return stopped.ok();
  };
  auto on_token = [&](const engine::GeneratedToken& token) {
    ++completion_tokens;
    reason = token.reason;
    on_event(ToChunk(token));
    stopped = go_on();
    return stopped.ok();
  };
  absl::StatusOr<engine::LocalTiming> timing =
      session_->Generate(prompt, options, tokenizer_.get(), on_progress, on_token);
  if (!timing.ok()) return stopped.ok() ? timing.status() : stopped;
  on_event(Finish(prompt_tokens, completion_tokens, reason, options.sampling.seed, *timing));
  return absl::OkStatus();
}

}  // namespace salamander::cli
