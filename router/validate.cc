#include "router/validate.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/model/tokenizer.h"

namespace salamander::router {
namespace {

// Enough of a client's own bytes to recognize them, never so many that the message is refused for its size.
constexpr size_t kQuotedBytes = 64;

template <typename Value>
absl::Status Invalid(const std::string& field, const std::string& rule, const Value& value) {
  return absl::InvalidArgumentError(absl::StrCat(field, " must be ", rule, ", got ", value));
}

std::string Quote(const std::string& text) {
  return absl::StrCat("\"", absl::CHexEscape(text.substr(0, kQuotedBytes)), "\"");
}

absl::Status CheckUtf8(const std::string& field, const std::string& text) {
  const size_t offset = model::FindInvalidUtf8(text);
  if (offset == std::string_view::npos) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " must be UTF-8, got an invalid byte at offset ", offset, " of ", text.size()));
}

absl::Status CheckToken(const std::string& field, int64_t token, int64_t vocab_size) {
  if (token >= 0 && token < vocab_size) return absl::OkStatus();
  return Invalid(field, absl::StrCat("a token id in [0, ", vocab_size, ")"), token);
}

absl::Status CheckPromptBytes(const std::string& field, int64_t bytes) {
  if (bytes <= kMaxPromptBytes) return absl::OkStatus();
  return Invalid(field, absl::StrCat("at most ", kMaxPromptBytes, " bytes"), bytes);
}

absl::Status CheckTokens(const v1::TokenIds& tokens, int64_t vocab_size) {
  if (tokens.ids().empty()) return absl::InvalidArgumentError("prompt.tokens must not be empty, got 0 ids");
  for (int i = 0; i < tokens.ids_size(); ++i) {
    const int64_t id = tokens.ids(i);
    if (id < 0 || id >= vocab_size) return CheckToken(absl::StrCat("prompt.tokens.ids[", i, "]"), id, vocab_size);
  }
  return absl::OkStatus();
}

absl::Status CheckChat(const v1::Chat& chat) {
  if (chat.messages().empty()) return absl::InvalidArgumentError("prompt.chat must not be empty, got 0 messages");
  int64_t bytes = 0;
  for (const v1::ChatMessage& message : chat.messages()) bytes += static_cast<int64_t>(message.content().size());
  RETURN_IF_ERROR(CheckPromptBytes("prompt.chat", bytes));
  for (int i = 0; i < chat.messages_size(); ++i) {
    const std::string field = absl::StrCat("prompt.chat.messages[", i, "]");
    const std::string& role = chat.messages(i).role();
    if (role != "system" && role != "user" && role != "assistant" && role != "tool") {
      return Invalid(field + ".role", "system, user, assistant or tool", Quote(role));
    }
    RETURN_IF_ERROR(CheckUtf8(field + ".content", chat.messages(i).content()));
  }
  return absl::OkStatus();
}

// Written so that NaN fails every comparison and with it the check.
absl::Status CheckSampling(const v1::SamplingOptions& sampling, int64_t vocab_size) {
  if (!(sampling.temperature() >= 0 && std::isfinite(sampling.temperature()))) {
    return Invalid("sampling.temperature", "a finite number ≥ 0", sampling.temperature());
  }
  if (!(sampling.top_p() > 0 && sampling.top_p() <= 1)) {
    return Invalid("sampling.top_p", "in (0, 1]", sampling.top_p());
  }
  if (sampling.top_k() < 0) return Invalid("sampling.top_k", "≥ 0", sampling.top_k());
  if (!(sampling.min_p() >= 0 && sampling.min_p() <= 1)) {
    return Invalid("sampling.min_p", "in [0, 1]", sampling.min_p());
  }
  if (!(sampling.repetition_penalty() > 0 && std::isfinite(sampling.repetition_penalty()))) {
    return Invalid("sampling.repetition_penalty", "a finite number > 0", sampling.repetition_penalty());
  }
  if (!(std::abs(sampling.presence_penalty()) <= kMaxTokenPenalty)) {
    return Invalid("sampling.presence_penalty", "in [-2, 2]", sampling.presence_penalty());
  }
  if (!(std::abs(sampling.frequency_penalty()) <= kMaxTokenPenalty)) {
    return Invalid("sampling.frequency_penalty", "in [-2, 2]", sampling.frequency_penalty());
  }
  if (sampling.logit_bias_size() > kMaxLogitBiases) {
    return Invalid("sampling.logit_bias", absl::StrCat("at most ", kMaxLogitBiases, " entries"),
                   sampling.logit_bias_size());
  }
  for (const auto& [token, bias] : sampling.logit_bias()) {
    RETURN_IF_ERROR(CheckToken("sampling.logit_bias key", token, vocab_size));
    if (!(std::abs(bias) <= kMaxLogitBias)) {
      return Invalid(absl::StrCat("sampling.logit_bias[", token, "]"), "in [-100, 100]", bias);
    }
  }
  return absl::OkStatus();
}

absl::Status CheckStop(const v1::StopCondition& stop, const std::string& field, int64_t vocab_size) {
  if (!stop.has_text() && !stop.has_token_id()) {
    return absl::InvalidArgumentError(field + " must set text or token_id, got neither");
  }
  if (stop.has_text() && stop.has_token_id()) {
    return absl::InvalidArgumentError(field + " must set one of text and token_id, got both");
  }
  if (stop.has_token_id()) return CheckToken(field + ".token_id", stop.token_id(), vocab_size);
  if (stop.text().empty() || stop.text().size() > kMaxStopTextBytes) {
    return Invalid(field + ".text", absl::StrCat("1 to ", kMaxStopTextBytes, " bytes"), stop.text().size());
  }
  return CheckUtf8(field + ".text", stop.text());
}

void FillSamplingDefaults(v1::SamplingOptions* sampling) {
  if (!sampling->has_temperature()) sampling->set_temperature(1);
  if (!sampling->has_top_p()) sampling->set_top_p(1);
  if (!sampling->has_top_k()) sampling->set_top_k(0);
  if (!sampling->has_min_p()) sampling->set_min_p(0);
  if (!sampling->has_repetition_penalty()) sampling->set_repetition_penalty(1);
  if (!sampling->has_presence_penalty()) sampling->set_presence_penalty(0);
  if (!sampling->has_frequency_penalty()) sampling->set_frequency_penalty(0);
}

}  // namespace

absl::Status CheckPrompt(const v1::Prompt& prompt, int64_t vocab_size) {
  const int kinds = prompt.has_text() + prompt.has_tokens() + prompt.has_chat();
  if (kinds != 1) return Invalid("prompt", "exactly one of text, tokens and chat", absl::StrCat(kinds, " of them"));
  if (prompt.has_tokens()) return CheckTokens(prompt.tokens(), vocab_size);
  if (prompt.has_chat()) return CheckChat(prompt.chat());
  if (prompt.text().empty()) return absl::InvalidArgumentError("prompt.text must not be empty, got 0 bytes");
  RETURN_IF_ERROR(CheckPromptBytes("prompt.text", static_cast<int64_t>(prompt.text().size())));
  return CheckUtf8("prompt.text", prompt.text());
}

absl::StatusOr<v1::DecodeStart> CheckOptions(const v1::GenerateRequest& request, const RequestLimits& limits) {
  v1::DecodeStart start;
  *start.mutable_sampling() = request.sampling();
  FillSamplingDefaults(start.mutable_sampling());
  RETURN_IF_ERROR(CheckSampling(start.sampling(), limits.vocab_size));
  if (request.stop_size() > kMaxStops) {
    return Invalid("stop", absl::StrCat("at most ", kMaxStops, " conditions"), request.stop_size());
  }
  for (int i = 0; i < request.stop_size(); ++i) {
    RETURN_IF_ERROR(CheckStop(request.stop(i), absl::StrCat("stop[", i, "]"), limits.vocab_size));
  }
  *start.mutable_stop() = request.stop();
  if (request.has_logprobs() && (request.logprobs() < 0 || request.logprobs() > limits.max_logprobs)) {
    return Invalid("logprobs", absl::StrCat("in [0, ", limits.max_logprobs, "]"), request.logprobs());
  }
  start.set_logprobs(request.has_logprobs() ? request.logprobs() : -1);
  if (request.priority() < -kMaxPriority || request.priority() > kMaxPriority) {
    return Invalid("priority", absl::StrCat("in [-", kMaxPriority, ", ", kMaxPriority, "]"), request.priority());
  }
  if (request.has_max_tokens() && request.max_tokens() <= 0) return Invalid("max_tokens", "> 0", request.max_tokens());
  start.set_ignore_eos(request.ignore_eos());
  return start;
}

absl::StatusOr<int64_t> CheckMaxTokens(const v1::GenerateRequest& request, int64_t prompt_tokens,
                                       const RequestLimits& limits) {
  const int64_t left = limits.max_total_tokens - prompt_tokens;
  // Compared by subtraction: prompt_tokens + max_tokens may overflow.
  if (left < 1 || (request.has_max_tokens() && request.max_tokens() > left)) {
    return absl::InvalidArgumentError(absl::StrCat("prompt + max_tokens must be at most ", limits.max_total_tokens,
                                                   " tokens, got a prompt of ", prompt_tokens, " and max_tokens ",
                                                   request.has_max_tokens() ? request.max_tokens() : 1));
  }
  return request.has_max_tokens() ? request.max_tokens() : std::min(limits.default_max_tokens, left);
}

}  // namespace salamander::router
