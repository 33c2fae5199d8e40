// A golden case of the oracle, loaded on a backend, and how results are compared with it.
#ifndef SALAMANDER_TESTS_COMMON_ENGINE_GOLDEN_CASE_H_
#define SALAMANDER_TESTS_COMMON_ENGINE_GOLDEN_CASE_H_

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "common/base/memory_ledger.h"
#include "common/engine/forward.h"
#include "common/engine/model.h"
#include "common/engine/sequence.h"
#include "common/model/checkpoint.h"
#include "common/model/safetensors.h"
#include "kernels/ops.h"

namespace salamander::engine {

struct GoldenCase {
  // Dies by CHECK-like abort with the status if anything cannot be loaded.
  explicit GoldenCase(const std::string& name, kernels::CpuIsa isa = kernels::DetectCpuIsa(), int threads = 2);
  GoldenCase(const std::string& name, std::unique_ptr<kernels::Ops> backend);

  absl::Span<const float> Floats(const std::string& tensor) const;
  absl::Span<const int32_t> Ints(const std::string& tensor) const;
  absl::Span<const int32_t> prompt() const { return Ints("prompt"); }
  absl::Span<const int32_t> continuation() const { return Ints("continuation"); }
  // For prompt and continuation.
  std::unique_ptr<Sequence> NewSequence();

  MemoryLedger ledger{int64_t{1} << 32};
  std::unique_ptr<kernels::Ops> ops;
  std::unique_ptr<model::SafetensorsFile> golden;
  std::unique_ptr<Model> model;
};

inline constexpr const char* kGoldenNames[] = {"dense", "sparse", "crossing", "wide", "odd"};

// What this machine can run.
std::vector<kernels::CpuIsa> AvailableIsas();

// The logits after a step of `decode`, if that went well.
absl::StatusOr<std::vector<float>> LogitsAfter(const DecodeForward& decode, const absl::Status& step);

// The lowest id of the largest logit.
inline int32_t Likeliest(absl::Span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// The largest difference over the range (largest minus smallest) of `want`. Infinite when the sizes differ or NaN.
double WorstError(absl::Span<const float> got, absl::Span<const float> want);

// Of float32 arrays as vectors: the length of the difference over that of `want`.
double RelativeError(absl::Span<const float> got, absl::Span<const float> want);

// Keys (or values) of tokens [0, tokens) of a sparse layer, as [tokens, kv heads, head_dim].
std::vector<float> ReadKv(Sequence& sequence, int64_t layer, int64_t tokens, bool values);

// The state of a lightning layer.
std::vector<float> ReadState(Sequence& sequence, int64_t layer);

// On the CPU. One run of bytes per piece of both, which must be alike: how keys, values and states travel between
// workers.
void CopyRuns(const std::vector<absl::Span<std::byte>>& from, const std::vector<absl::Span<std::byte>>& to);

// Makes `to`, which is new, what `from` is after its first `tokens` tokens: keys and values of the sparse layers and
// states of the lightning layers.
void CopyTokens(Sequence& from, Sequence& to, int64_t tokens);

}  // namespace salamander::engine

#endif  // SALAMANDER_TESTS_COMMON_ENGINE_GOLDEN_CASE_H_
