#include "decode_worker/start.h"

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace salamander::decode {
namespace {

engine::SamplingParams ParseSampling(const v1::SamplingOptions& sampling) {
  engine::SamplingParams params;
  if (sampling.has_temperature()) params.temperature = sampling.temperature();
  if (sampling.has_top_p()) params.top_p = sampling.top_p();
  if (sampling.has_top_k()) params.top_k = sampling.top_k();
  if (sampling.has_min_p()) params.min_p = sampling.min_p();
  if (sampling.has_repetition_penalty()) params.repetition_penalty = sampling.repetition_penalty();
  if (sampling.has_presence_penalty()) params.presence_penalty = sampling.presence_penalty();
  if (sampling.has_frequency_penalty()) params.frequency_penalty = sampling.frequency_penalty();
  for (const auto& [token, bias] : sampling.logit_bias()) params.logit_bias.emplace_back(token, bias);
  params.seed = sampling.seed();
  return params;
}

absl::Status ParseStop(const v1::DecodeStart& start, const StartLimits& limits, engine::GenerationOptions& options) {
  for (int i = 0; i < start.stop_size(); ++i) {
    const v1::StopCondition& stop = start.stop(i);
    if (stop.has_text() == stop.has_token_id()) {
      return absl::InvalidArgumentError(absl::StrCat("stop[", i, "]: exactly one of text and token_id must be set"));
    }
    if (stop.has_token_id()) {
      options.stop_token_ids.push_back(stop.token_id());
    } else if (!limits.has_tokenizer) {
      return absl::InvalidArgumentError(absl::StrCat("stop[", i, "].text: this model has no tokenizer"));
    } else if (stop.text().empty()) {
      return absl::InvalidArgumentError(absl::StrCat("stop[", i, "].text: is empty"));
    } else {
      options.stop_texts.push_back(stop.text());
    }
  }
  return absl::OkStatus();
}

absl::Status CheckPrompt(const v1::DecodeStart& start, const StartLimits& limits,
                         const engine::GenerationOptions& options) {
  if (start.prompt_tokens_size() != limits.prompt_tokens &&
      (start.prompt_tokens_size() != 0 || options.sampling.needs_prompt())) {
    return absl::InvalidArgumentError(absl::StrCat("prompt_tokens: ", start.prompt_tokens_size(),
                                                   " ids, the plan's prompt has ", limits.prompt_tokens));
  }
  for (int i = 0; i < start.prompt_tokens_size(); ++i) {
    if (start.prompt_tokens(i) >= 0 && start.prompt_tokens(i) < limits.vocab_size) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("prompt_tokens[", i, "]: ", start.prompt_tokens(i), " is not in [0, ", limits.vocab_size, ")"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<engine::GenerationOptions> ParseStart(const v1::DecodeStart& start, const StartLimits& limits) {
  engine::GenerationOptions options;
  options.sampling = ParseSampling(start.sampling());
  RETURN_IF_ERROR(engine::CheckSamplingParams(options.sampling, limits.vocab_size));
  RETURN_IF_ERROR(ParseStop(start, limits, options));
  RETURN_IF_ERROR(CheckPrompt(start, limits, options));
  options.max_tokens = start.max_tokens();
  if (options.max_tokens < 1 || options.max_tokens > limits.total_tokens - limits.prompt_tokens) {
    return absl::InvalidArgumentError(absl::StrCat("max_tokens: ", options.max_tokens, " is not in [1, ",
                                                   limits.total_tokens - limits.prompt_tokens,
                                                   "], what the reservation has beside the prompt"));
  }
  if (start.logprobs() < -1 || start.logprobs() > limits.vocab_size) {
    return absl::InvalidArgumentError(
        absl::StrCat("logprobs: ", start.logprobs(), " is not in [-1, ", limits.vocab_size, "]"));
  }
  options.logprobs = start.logprobs();
  options.ignore_eos = start.ignore_eos();
  return options;
}

}  // namespace salamander::decode
