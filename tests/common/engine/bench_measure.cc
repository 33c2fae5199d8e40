#include "tests/common/engine/bench_measure.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status_macros.h"
#include "common/engine/forward.h"

namespace salamander::engine {
namespace {

constexpr int kRepeats = 3;

std::vector<int32_t> RandomTokens(int64_t count, int64_t vocab_size) {
  std::mt19937 random(17);
  std::uniform_int_distribution<int32_t> token(0, static_cast<int32_t>(vocab_size) - 1);
  std::vector<int32_t> tokens(count);
  for (int32_t& t : tokens) t = token(random);
  return tokens;
}

// Runs `work` and fills in its time, in all and by operation.
template <typename Work>
absl::Status Time(kernels::Ops& ops, Measurement& result, const Work& work) {
  const auto before = ops.OpSeconds();
  const double start = RealClock().Now();
  RETURN_IF_ERROR(work());
  RETURN_IF_ERROR(ops.Synchronize());
  result.seconds = RealClock().Now() - start;
  for (const auto& [name, seconds] : ops.OpSeconds()) result.op_seconds[name] += seconds;
  for (const auto& [name, seconds] : before) result.op_seconds[name] -= seconds;
  return absl::OkStatus();
}

// Buffers for x · weightᵀ on `rows` rows. Of zeros: the time of a product does not depend on its numbers.
class MatMulBench {
 public:
  static absl::StatusOr<MatMulBench> Create(kernels::Ops& ops, MemoryLedger& ledger, int64_t rows, int64_t widest) {
    MatMulBench bench(ops, rows);
    const int64_t bytes = rows * widest * kernels::DTypeBytes(ops.activation_type());
    ASSIGN_OR_RETURN(bench.x_, DeviceBuffer::Allocate(ops, ledger, MemoryOwner::kWorkspace, bytes));
    ASSIGN_OR_RETURN(bench.y_, DeviceBuffer::Allocate(ops, ledger, MemoryOwner::kWorkspace, bytes));
    RETURN_IF_ERROR(ops.Zero(bench.x_.data(), bytes));
    return bench;
  }

  // The fastest of a few runs.
  absl::StatusOr<double> Seconds(const kernels::Weight& weight) {
    const kernels::Matrix x = {x_.data(), rows_, weight.in_features(), weight.in_features()};
    const kernels::Matrix y = {y_.data(), rows_, weight.out_features(), weight.out_features()};
    double best = 1e9;
    for (int i = 0; i < kRepeats; ++i) {
      const double start = RealClock().Now();
      RETURN_IF_ERROR(ops_->MatMul(x, weight, nullptr, y));
      RETURN_IF_ERROR(ops_->Synchronize());
      best = std::min(best, RealClock().Now() - start);
    }
    return best;
  }

 private:
  MatMulBench(kernels::Ops& ops, int64_t rows) : ops_(&ops), rows_(rows) {}
  kernels::Ops* ops_;
  int64_t rows_;
  DeviceBuffer x_, y_;
};

struct Products {
  double seconds = 0;  // for `rows` tokens
  double gflop = 0;
};

// All matrix products of the layers, and of the logits if every token has some (decode).
absl::StatusOr<Products> MeasureProducts(const Model& model, MemoryLedger& ledger, int64_t rows, bool logits) {
  std::vector<const kernels::Weight*> weights;
  for (int64_t layer = 0; layer < model.layers(); ++layer) {
    const LayerWeights& of_layer = model.layer(layer);
    for (const auto* weight : {&of_layer.projection, &of_layer.output, &of_layer.gate_up, &of_layer.down}) {
      weights.push_back(weight->get());
    }
  }
  if (logits) weights.push_back(&model.lm_head());
  int64_t widest = 0;
  for (const kernels::Weight* weight : weights) {
    widest = std::max({widest, weight->in_features(), weight->out_features()});
  }
  ASSIGN_OR_RETURN(MatMulBench bench, MatMulBench::Create(model.ops(), ledger, rows, widest));
  Products products;
  for (const kernels::Weight* weight : weights) {
    ASSIGN_OR_RETURN(const double seconds, bench.Seconds(*weight));
    products.seconds += seconds;
    products.gflop += 2e-9 * static_cast<double>(rows * weight->in_features() * weight->out_features());
  }
  return products;
}

absl::Status Prefill(Sequence& sequence, Workspace& workspace, SpanActivations& activations,
                     absl::Span<const int32_t> prompt) {
  const auto prompt_tokens = static_cast<int64_t>(prompt.size());
  for (int64_t begin = 0; begin < prompt_tokens; begin += workspace.max_rows()) {
    SpanForward span(sequence, workspace, activations, prompt.subspan(begin, workspace.max_rows()), begin,
                     prompt_tokens);
    while (span.phase() != SpanPhase::kFinished) RETURN_IF_ERROR(span.Step());
  }
  return absl::OkStatus();
}

void CopyContext(Sequence& from, Sequence& to, int64_t tokens) {
  auto copy = [](absl::Span<const std::byte> source, absl::Span<std::byte> target) {
    std::memcpy(target.data(), source.data(), source.size());
  };
  for (int64_t layer = 0; layer < from.model().layers(); ++layer) {
    if (!from.model().is_sparse(layer)) {
      copy(from.State(layer), to.State(layer));
      continue;
    }
    const auto source = from.KvBytes(layer, 0, tokens), target = to.KvBytes(layer, 0, tokens);
    for (size_t i = 0; i < source.size(); ++i) copy(source[i], target[i]);
  }
}

}  // namespace

absl::StatusOr<Measurement> MeasurePrefill(const Model& model, MemoryLedger& ledger, int64_t tokens,
                                           int64_t span_tokens) {
  const std::vector<int32_t> prompt = RandomTokens(tokens, model.config().vocab_size);
  const int64_t rows = std::min(tokens, span_tokens);
  ASSIGN_OR_RETURN(const Products products, MeasureProducts(model, ledger, rows, /*logits=*/false));
  ASSIGN_OR_RETURN(const auto sequence, Sequence::Create(model, ledger, tokens));
  ASSIGN_OR_RETURN(const auto workspace, Workspace::Create(model, ledger, rows));
  ASSIGN_OR_RETURN(const auto activations, SpanActivations::Create(model, ledger, rows));
  const double spans = static_cast<double>(tokens) / static_cast<double>(rows);
  Measurement result;
  result.tokens = tokens;
  result.matmul_floor_seconds = products.seconds * spans;
  result.gflop = products.gflop * spans;
  RETURN_IF_ERROR(Time(model.ops(), result, [&] { return Prefill(*sequence, *workspace, *activations, prompt); }));
  return result;
}

absl::StatusOr<Measurement> MeasureDecode(const Model& model, MemoryLedger& ledger, int64_t batch, int64_t context,
                                          int64_t steps, int64_t span_tokens) {
  const std::vector<int32_t> prompt = RandomTokens(context, model.config().vocab_size);
  std::vector<std::unique_ptr<Sequence>> sequences(batch);
  for (auto& sequence : sequences) {
    ASSIGN_OR_RETURN(sequence, Sequence::Create(model, ledger, context + steps + 1));
  }
  {
    ASSIGN_OR_RETURN(const auto workspace, Workspace::Create(model, ledger, span_tokens));
    ASSIGN_OR_RETURN(const auto activations, SpanActivations::Create(model, ledger, span_tokens));
    RETURN_IF_ERROR(Prefill(*sequences[0], *workspace, *activations, prompt));
  }
  for (int64_t i = 1; i < batch; ++i) CopyContext(*sequences[0], *sequences[i], context);
  ASSIGN_OR_RETURN(const Products products, MeasureProducts(model, ledger, batch, /*logits=*/true));
  ASSIGN_OR_RETURN(const auto decode, DecodeForward::Create(model, ledger, batch));
  auto step = [&](int64_t number) {
    std::vector<DecodeRow> rows;
    for (int64_t i = 0; i < batch; ++i) rows.push_back({sequences[i].get(), prompt[i], context + number});
    return decode->Step(rows).status();
  };
  RETURN_IF_ERROR(step(0));  // Makes the copies' tiers.
  Measurement result;
  result.tokens = batch * steps;
  result.matmul_floor_seconds = products.seconds * static_cast<double>(steps);
  result.gflop = products.gflop * static_cast<double>(steps);
  const auto all_steps = [&]() -> absl::Status {
    for (int64_t number = 1; number <= steps; ++number) RETURN_IF_ERROR(step(number));
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(Time(model.ops(), result, all_steps));
  return result;
}

absl::StatusOr<double> MeasureMatMulRate(kernels::Ops& ops, MemoryLedger& ledger, int64_t size) {
  const std::vector<float> values(size * size, 0.5f);
  const kernels::WeightPart part = {values.data(), kernels::DType::kFloat32, size, size};
  ASSIGN_OR_RETURN(const std::unique_ptr<kernels::Weight> weight, ops.PrepareWeight({part}));
  ASSIGN_OR_RETURN(MatMulBench bench, MatMulBench::Create(ops, ledger, size, size));
  ASSIGN_OR_RETURN(const double seconds, bench.Seconds(*weight));
  return 2e-9 * static_cast<double>(size) * static_cast<double>(size) * static_cast<double>(size) / seconds;
}

}  // namespace salamander::engine
