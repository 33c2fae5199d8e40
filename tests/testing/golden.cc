#include "tests/testing/golden.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <iostream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "common/base/status_macros.h"
#include "tests/testing/make_checkpoint.h"
#include "tests/testing/paths.h"

namespace salamander::testing {
namespace {

using model::SafetensorsFile;
using model::TensorView;

std::unique_ptr<SafetensorsFile> OpenOrDie(const std::string& path) {
  absl::StatusOr<std::unique_ptr<SafetensorsFile>> file = SafetensorsFile::Open(path);
  if (file.ok()) return *std::move(file);
  std::cerr << path << ": " << file.status() << "\n";
  std::abort();
}

template <typename T>
absl::Span<const T> Values(const TensorView& tensor) {
  return {reinterpret_cast<const T*>(tensor.data), static_cast<size_t>(tensor.elements())};
}

double Range(absl::Span<const float> values) {
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  return double{*high} - *low;
}

// log Σ exp, in double.
double LogSumExp(absl::Span<const float> logits) {
  const double highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - highest);
  return highest + std::log(sum);
}

absl::Status CheckStep(const std::string& what, absl::Span<const float> logits, const v1::TokenLogprob& found,
                       double tolerance) {
  if (found.top_size() != static_cast<int>(logits.size())) {
    return absl::InternalError(absl::StrCat(what, ": ", found.top_size(), " log-probabilities of ", logits.size()));
  }
  const double log_sum = LogSumExp(logits), limit = tolerance * Range(logits);
  std::vector<bool> seen(logits.size(), false);
  for (const v1::TopLogprob& top : found.top()) {
    if (seen.at(top.token())) return absl::InternalError(absl::StrCat(what, ": token ", top.token(), " twice"));
    seen[top.token()] = true;
    const double error = std::abs(top.logprob() - (logits[top.token()] - log_sum));
    if (!(error <= limit)) {
      return absl::InternalError(
          absl::StrCat(what, ": log-probability of token ", top.token(), " is off by ", error, ", allowed ", limit));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckTensor(const std::string& name, const TensorView& expected, const SafetensorsFile& capture,
                         double tolerance) {
  const auto at = capture.tensors().find(name);
  if (at == capture.tensors().end()) return absl::InternalError(absl::StrCat("capture has no ", name));
  const TensorView& found = at->second;
  if (found.elements() != expected.elements()) {
    return absl::InternalError(
        absl::StrCat(name, " has ", found.elements(), " elements, expected ", expected.elements()));
  }
  const absl::Span<const float> want = Values<float>(expected), have = Values<float>(found);
  const double limit = tolerance * Range(want);
  for (size_t i = 0; i < want.size(); ++i) {
    const double error = std::abs(double{want[i]} - have[i]);
    if (!(error <= limit)) {
      return absl::InternalError(
          absl::StrCat(name, "[", i, "] is ", have[i], ", expected ", want[i], " within ", limit));
    }
  }
  return absl::OkStatus();
}

bool IsReceived(const std::string& name) {
  return absl::StartsWith(name, "key.") || absl::StartsWith(name, "value.") || absl::StartsWith(name, "state.");
}

}  // namespace

Golden::Golden(const std::string& name)
    : folder(GoldenCheckpoint(name)), file(OpenOrDie(TestData(absl::StrCat("golden/", name, "/golden.safetensors")))) {
  const auto copy = [this](const char* tensor) {
    const absl::Span<const int32_t> values = Values<int32_t>(file->tensors().at(tensor));
    return std::vector<int32_t>(values.begin(), values.end());
  };
  prompt = copy("prompt");
  continuation = copy("continuation");
  vocab_size = static_cast<int>(file->tensors().at("step_logits").shape.at(1));
  while (file->tensors().contains(absl::StrCat("hidden_last.", last_layer + 1))) ++last_layer;
}

v1::GenerateRequest Golden::Request(bool all_logprobs) const {
  v1::GenerateRequest request = GreedyRequest(prompt, static_cast<int64_t>(continuation.size()));
  if (all_logprobs) request.set_logprobs(vocab_size);
  return request;
}

absl::Status CheckAnswer(const Golden& golden, const Answer& answer, double tolerance) {
  RETURN_IF_ERROR(answer.status);
  if (answer.tokens != golden.continuation) {
    return absl::InternalError(absl::StrCat("tokens ", absl::StrJoin(answer.tokens, " "), ", expected ",
                                            absl::StrJoin(golden.continuation, " ")));
  }
  if (answer.logprobs.size() != answer.tokens.size()) {
    return absl::InternalError(absl::StrCat(answer.logprobs.size(), " log-probabilities of ", answer.tokens.size()));
  }
  const absl::Span<const float> logits = Values<float>(golden.file->tensors().at("step_logits"));
  for (size_t step = 0; step < answer.tokens.size(); ++step) {
    RETURN_IF_ERROR(CheckStep(absl::StrCat("step ", step), logits.subspan(step * golden.vocab_size, golden.vocab_size),
                              answer.logprobs[step], tolerance));
  }
  return absl::OkStatus();
}

absl::Status CheckCapture(const Golden& golden, const std::string& path, double tolerance) {
  ASSIGN_OR_RETURN(const auto capture, SafetensorsFile::Open(path));
  size_t expected = 1;
  for (const auto& [name, tensor] : golden.file->tensors()) {
    if (!IsReceived(name)) continue;
    ++expected;
    RETURN_IF_ERROR(CheckTensor(name, tensor, *capture, tolerance));
  }
  if (capture->tensors().size() != expected) {
    return absl::InternalError(
        absl::StrCat("capture has ", capture->tensors().size(), " tensors, expected ", expected));
  }
  return CheckTensor("hidden", golden.file->tensors().at(absl::StrCat("hidden_last.", golden.last_layer)), *capture,
                     tolerance);
}

absl::Status CheckSameTensors(const std::string& path, const std::string& other) {
  ASSIGN_OR_RETURN(const auto first, SafetensorsFile::Open(path));
  ASSIGN_OR_RETURN(const auto second, SafetensorsFile::Open(other));
  if (first->tensors().size() != second->tensors().size()) return absl::InternalError("not the same tensors");
  for (const auto& [name, tensor] : first->tensors()) {
    const auto at = second->tensors().find(name);
    if (at == second->tensors().end() || at->second.bytes != tensor.bytes ||
        std::memcmp(at->second.data, tensor.data, static_cast<size_t>(tensor.bytes)) != 0) {
      return absl::InternalError(absl::StrCat(name, " differs"));
    }
  }
  return absl::OkStatus();
}

}  // namespace salamander::testing
