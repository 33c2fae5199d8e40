#include "tests/common/engine/golden_case.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/engine/float_convert.h"
#include "tests/testing/make_checkpoint.h"
#include "tests/testing/paths.h"

namespace salamander::engine {
namespace {

template <typename T>
T Must(absl::StatusOr<T> result) {
  if (!result.ok()) {
    std::fprintf(stderr, "%s\n", result.status().ToString().c_str());
    std::abort();
  }
  return std::move(result).value();
}

// Runs of device memory, one after the other.
std::vector<std::byte> ReadBytes(const Sequence& sequence, const std::vector<absl::Span<std::byte>>& runs) {
  kernels::Ops& ops = sequence.model().ops();
  std::vector<std::byte> bytes;
  for (const absl::Span<std::byte> run : runs) {
    bytes.resize(bytes.size() + run.size());
    EXPECT_TRUE(
        ops.CopyToHost(bytes.data() + bytes.size() - run.size(), run.data(), static_cast<int64_t>(run.size())).ok());
    EXPECT_TRUE(ops.Synchronize().ok());
  }
  return bytes;
}

}  // namespace

GoldenCase::GoldenCase(const std::string& name, kernels::CpuIsa isa, int threads)
    : GoldenCase(name, Must(kernels::CreateCpuOps(threads, isa))) {}

GoldenCase::GoldenCase(const std::string& name, std::unique_ptr<kernels::Ops> backend) : ops(std::move(backend)) {
  const std::string folder = testing::GoldenCheckpoint(name);
  const std::string expected = testing::TestData(absl::StrCat("golden/", name, "/golden.safetensors"));
  golden = Must(model::SafetensorsFile::Open(expected));
  const auto checkpoint = Must(model::Checkpoint::Open(folder));
  model = Must(Model::Load(*checkpoint, ops.get(), &ledger));
}

absl::Span<const float> GoldenCase::Floats(const std::string& tensor) const {
  const model::TensorView& view = golden->tensors().at(tensor);
  return {reinterpret_cast<const float*>(view.data), static_cast<size_t>(view.elements())};
}

absl::Span<const int32_t> GoldenCase::Ints(const std::string& tensor) const {
  const model::TensorView& view = golden->tensors().at(tensor);
  return {reinterpret_cast<const int32_t*>(view.data), static_cast<size_t>(view.elements())};
}

std::unique_ptr<Sequence> GoldenCase::NewSequence() {
  return Must(Sequence::Create(*model, ledger, static_cast<int64_t>(prompt().size() + continuation().size())));
}

std::vector<kernels::CpuIsa> AvailableIsas() {
  std::vector<kernels::CpuIsa> isas;
  for (const auto isa : {kernels::CpuIsa::kPortable, kernels::CpuIsa::kAvx2, kernels::CpuIsa::kAvx512}) {
    if (isa <= kernels::DetectCpuIsa()) isas.push_back(isa);
  }
  return isas;
}

absl::StatusOr<std::vector<float>> LogitsAfter(const DecodeForward& decode, const absl::Status& step) {
  RETURN_IF_ERROR(step);
  return decode.ReadLogits();
}

double WorstError(absl::Span<const float> got, absl::Span<const float> want) {
  if (got.size() != want.size() || want.empty()) return std::numeric_limits<double>::infinity();
  const auto [low, high] = std::minmax_element(want.begin(), want.end());
  double worst = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double error = std::fabs(static_cast<double>(got[i]) - want[i]);
    if (std::isnan(error)) return std::numeric_limits<double>::infinity();
    worst = std::max(worst, error);
  }
  return worst / (static_cast<double>(*high) - *low);
}

double RelativeError(absl::Span<const float> got, absl::Span<const float> want) {
  if (got.size() != want.size()) return std::numeric_limits<double>::infinity();
  double difference = 0, length = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    difference += std::pow(static_cast<double>(got[i]) - want[i], 2);
    length += std::pow(static_cast<double>(want[i]), 2);
  }
  return std::isnan(difference) ? std::numeric_limits<double>::infinity() : std::sqrt(difference / length);
}

std::vector<float> ReadKv(Sequence& sequence, int64_t layer, int64_t tokens, bool values) {
  const kernels::KvLayout& layout = sequence.model().sparse_shape().kv;
  const std::vector<std::byte> blocks = ReadBytes(sequence, sequence.KvBytes(layer, 0, tokens));
  std::vector<float> rows(tokens * layout.kv_heads * layout.head_dim);
  float* to = rows.data();
  for (int64_t token = 0; token < tokens; ++token) {
    const std::byte* block = blocks.data() + token / kernels::kBlockTokens * layout.block_bytes();
    for (int64_t head = 0; head < layout.kv_heads; ++head, to += layout.head_dim) {
      const int64_t tile = values ? layout.values(0, head) : layout.keys(0, head);
      ToFloats(block + tile + token % kernels::kBlockTokens * layout.row_bytes(), layout.type, layout.head_dim, to);
    }
  }
  return rows;
}

std::vector<float> ReadState(Sequence& sequence, int64_t layer) {
  const std::vector<std::byte> bytes = ReadBytes(sequence, {sequence.State(layer)});
  std::vector<float> state(bytes.size() / sizeof(float));
  std::memcpy(state.data(), bytes.data(), bytes.size());
  return state;
}

void CopyRuns(const std::vector<absl::Span<std::byte>>& from, const std::vector<absl::Span<std::byte>>& to) {
  ASSERT_EQ(from.size(), to.size());
  for (size_t i = 0; i < from.size(); ++i) {
    ASSERT_EQ(from[i].size(), to[i].size());
    std::memcpy(to[i].data(), from[i].data(), from[i].size());
  }
}

void CopyTokens(Sequence& from, Sequence& to, int64_t tokens) {
  for (int64_t layer = 0; layer < from.model().layers(); ++layer) {
    if (from.model().is_sparse(layer)) {
      CopyRuns(from.KvBytes(layer, 0, tokens), to.KvBytes(layer, 0, tokens));
    } else {
      CopyRuns({from.State(layer)}, {to.State(layer)});
    }
  }
}

}  // namespace salamander::engine
