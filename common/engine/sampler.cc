#include "common/engine/sampler.h"

#include <cmath>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "common/engine/philox.h"

namespace salamander::engine {
namespace {

absl::Status OutOfRange(std::string_view field, std::string_view limit, double value) {
  return absl::InvalidArgumentError(absl::StrCat(std::string(field), " must be ", std::string(limit), ", got ", value));
}

}  // namespace

absl::Status CheckSamplingParams(const SamplingParams& params, int64_t vocab_size) {
  // Written so that NaN fails every comparison.
  if (!(params.temperature >= 0)) return OutOfRange("temperature", "≥ 0", params.temperature);
  if (std::isinf(params.temperature)) return OutOfRange("temperature", "finite", params.temperature);
  if (!(params.top_p > 0 && params.top_p <= 1)) return OutOfRange("top_p", "in (0, 1]", params.top_p);
  if (params.top_k < 0) return OutOfRange("top_k", "≥ 0", params.top_k);
  if (!(params.min_p >= 0 && params.min_p <= 1)) return OutOfRange("min_p", "in [0, 1]", params.min_p);
  if (!(params.repetition_penalty > 0)) return OutOfRange("repetition_penalty", "> 0", params.repetition_penalty);
  if (std::isinf(params.repetition_penalty)) {
    return OutOfRange("repetition_penalty", "finite", params.repetition_penalty);
  }
  if (!(std::fabs(params.presence_penalty) <= 2)) {
    return OutOfRange("presence_penalty", "in [-2, 2]", params.presence_penalty);
  }
  if (!(std::fabs(params.frequency_penalty) <= 2)) {
    return OutOfRange("frequency_penalty", "in [-2, 2]", params.frequency_penalty);
  }
  for (const auto& [token, bias] : params.logit_bias) {
    if (token < 0 || token >= vocab_size) {
      return OutOfRange("token id of logit_bias", absl::StrCat("in [0, ", vocab_size, ")"), token);
    }
    if (!(std::fabs(bias) <= 100)) {
      return OutOfRange(absl::StrCat("logit_bias of token ", token), "in [-100, 100]", bias);
    }
  }
  return absl::OkStatus();
}

void DrawRequests::Add(const SamplingParams& params, const TokenHistory& history, int64_t position, int32_t logprobs) {
  const auto row = static_cast<int32_t>(rows.size());
  rows.push_back({.temperature = params.temperature,
                  .top_k = params.top_k,
                  .top_p = params.top_p,
                  .min_p = params.min_p,
                  .random = RandomAt(params.seed, position),
                  .logprobs = logprobs});

  const bool counts_output =
      params.repetition_penalty != 1 || params.presence_penalty != 0 || params.frequency_penalty != 0;
  if (!counts_output && params.logit_bias.empty()) return;
  std::unordered_map<int32_t, kernels::LogitEdit> edit_of;
  auto edit = [&](int32_t token) -> kernels::LogitEdit& {
    return edit_of.try_emplace(token, kernels::LogitEdit{.row = row, .token = token}).first->second;
  };
  if (counts_output) {
    for (const auto& [token, count] : history.output_counts) {
      edit(token) = {.row = row,
                     .token = token,
                     .factor = params.repetition_penalty,
                     .added = -(params.presence_penalty + params.frequency_penalty * static_cast<float>(count))};
    }
  }
  if (params.repetition_penalty != 1) {
    for (const auto& [token, count] : history.prompt_counts) edit(token).factor = params.repetition_penalty;
  }
  for (const auto& [token, bias] : params.logit_bias) edit(token).added += bias;
  for (const auto& [token, of_token] : edit_of) edits.push_back(of_token);
}

}  // namespace salamander::engine
