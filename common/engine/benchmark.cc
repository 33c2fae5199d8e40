#include "common/engine/benchmark.h"

#include <algorithm>
#include <random>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status_macros.h"
#include "common/engine/float_convert.h"

namespace salamander::engine {
namespace {

constexpr int kRepeats = 3;
// Steps that warm a batch size up: a device may record a step before it replays it.
constexpr int64_t kWarmSteps = 4;

std::vector<int32_t> RandomTokens(int64_t count, int64_t vocab_size) {
  std::mt19937 random(17);
  std::uniform_int_distribution<int32_t> token(0, static_cast<int32_t>(vocab_size) - 1);
  std::vector<int32_t> tokens(count);
  for (int32_t& t : tokens) t = token(random);
  return tokens;
}

// The fastest of a few runs, each waited for.
template <typename Work>
absl::StatusOr<double> BestSeconds(kernels::Ops& ops, const Work& work) {
  double best = 1e9;
  for (int i = 0; i < kRepeats; ++i) {
    const double start = RealClock().Now();
    RETURN_IF_ERROR(work());
    RETURN_IF_ERROR(ops.Synchronize());
    best = std::min(best, RealClock().Now() - start);
  }
  return best;
}

// Runs `work` and fills in its time, in all and by operation.
template <typename Work>
absl::Status Time(kernels::Ops& ops, Measurement& result, const Work& work) {
  RETURN_IF_ERROR(ops.Synchronize());
  const auto before = ops.OpSeconds();
  const double start = RealClock().Now();
  RETURN_IF_ERROR(work());
  RETURN_IF_ERROR(ops.Synchronize());
  result.seconds = RealClock().Now() - start;
  for (const auto& [name, seconds] : ops.OpSeconds()) result.op_seconds[name] += seconds;
  for (const auto& [name, seconds] : before) result.op_seconds[name] -= seconds;
  return absl::OkStatus();
}

// Buffers for x · weightᵀ on `rows` rows of random numbers: a GPU's clock depends on the numbers.
class MatMulBench {
 public:
  static absl::StatusOr<MatMulBench> Create(kernels::Ops& ops, MemoryLedger& ledger, int64_t rows, int64_t widest_in,
                                            int64_t widest_out) {
    MatMulBench bench(ops, rows);
    const int64_t element = kernels::DTypeBytes(ops.activation_type());
    ASSIGN_OR_RETURN(bench.x_,
                     DeviceBuffer::Allocate(ops, ledger, MemoryOwner::kWorkspace, rows * widest_in * element));
    ASSIGN_OR_RETURN(bench.y_,
                     DeviceBuffer::Allocate(ops, ledger, MemoryOwner::kWorkspace, rows * widest_out * element));
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    std::vector<float> values(std::min<int64_t>(rows * widest_in, 1 << 20));
    for (float& value : values) value = normal(random);
    std::vector<std::byte> raw(values.size() * element);
    FromFloats(values.data(), ops.activation_type(), static_cast<int64_t>(values.size()), raw.data());
    const int64_t piece = static_cast<int64_t>(raw.size());
    for (int64_t at = 0; at < bench.x_.bytes(); at += piece) {
      const int64_t bytes = std::min(piece, bench.x_.bytes() - at);
      RETURN_IF_ERROR(ops.CopyToDevice(bench.x_.as<std::byte>() + at, raw.data(), bytes));
    }
    return bench;
  }

  absl::StatusOr<double> Seconds(const kernels::Weight& weight) {
    const kernels::Matrix x = {x_.data(), rows_, weight.in_features(), weight.in_features()};
    const kernels::Matrix y = {y_.data(), rows_, weight.out_features(), weight.out_features()};
    return BestSeconds(*ops_, [&] { return ops_->MatMul(x, weight, nullptr, y); });
  }

 private:
  MatMulBench(kernels::Ops& ops, int64_t rows) : ops_(&ops), rows_(rows) {}
  kernels::Ops* ops_;
  int64_t rows_;
  DeviceBuffer x_, y_;
};

// Every matrix product that a token runs through; the logits' if every token has some (decode).
std::vector<const kernels::Weight*> Products(const Model& model, bool logits) {
  std::vector<const kernels::Weight*> weights;
  for (int64_t layer = 0; layer < model.layers(); ++layer) {
    const LayerWeights& of_layer = model.layer(layer);
    for (const auto* weight : {&of_layer.projection, &of_layer.output, &of_layer.gate_up, &of_layer.down}) {
      weights.push_back(weight->get());
    }
  }
  if (logits) weights.push_back(&model.lm_head());
  return weights;
}

absl::StatusOr<double> MeasureProducts(const Model& model, MemoryLedger& ledger, int64_t rows, bool logits) {
  const auto weights = Products(model, logits);
  int64_t in = 0, out = 0;
  for (const kernels::Weight* weight : weights) {
    in = std::max(in, weight->in_features());
    out = std::max(out, weight->out_features());
  }
  ASSIGN_OR_RETURN(MatMulBench bench, MatMulBench::Create(model.ops(), ledger, rows, in, out));
  double all = 0;
  for (const kernels::Weight* weight : weights) {
    ASSIGN_OR_RETURN(const double seconds, bench.Seconds(*weight));
    all += seconds;
  }
  return all;
}

double ProductFlops(const Model& model, bool logits) {
  double flops = 0;
  for (const kernels::Weight* weight : Products(model, logits)) {
    flops += 2.0 * static_cast<double>(weight->in_features()) * static_cast<double>(weight->out_features());
  }
  return flops;
}

double SparseLayers(const Model& model) {
  return static_cast<double>(model.config().CountLayers(model::LayerKind::kSparse));
}
double LightningLayers(const Model& model) {
  return static_cast<double>(model.config().CountLayers(model::LayerKind::kLightning));
}

// Arithmetic of stage 1 and stage 2, or of dense attention, of a whole prompt in one sparse layer.
double AttentionFlops(const Model& model, int64_t tokens) {
  const model::Config& config = model.config();
  const double per_key = 2.0 * static_cast<double>(config.heads * config.head_dim);  // of one product
  const int64_t most = model.sparse_shape().top_blocks * kernels::kBlockTokens;
  double flops = 0;
  for (int64_t position = 0; position < tokens; ++position) {
    if (tokens < config.dense_len) {
      flops += 2 * per_key * static_cast<double>(position + 1);
      continue;
    }
    const int64_t windows = kernels::K1Count(position + 1) + kernels::K2Count(position + 1);
    flops += per_key * static_cast<double>(windows + 2 * std::min(position + 1, most));
  }
  return flops;
}

// Bytes that lightning attention moves for one token in one layer: q, k, v and the output once.
double LightningBytes(const Model& model) {
  const model::Config& config = model.config();
  const int64_t columns = 2 * (config.lightning_heads + config.lightning_kv_heads) * config.lightning_head_dim;
  return static_cast<double>(columns * kernels::DTypeBytes(model.ops().activation_type()));
}

// Bytes that one decode step of one sequence reads and writes beside the weights.
double DecodeBytes(const Model& model, int64_t context) {
  const kernels::KvLayout& kv = model.sparse_shape().kv;
  const int64_t windows = kernels::K1Count(context) + kernels::K2Count(context);
  const int64_t keys = std::min(context, model.sparse_shape().top_blocks * kernels::kBlockTokens);
  const bool sparse = context >= model.config().dense_len;
  const int64_t of_sparse_layer =
      sparse ? windows * kv.kv_heads * kv.row_bytes() + keys * kv.token_bytes() : context * kv.token_bytes();
  return SparseLayers(model) * static_cast<double>(of_sparse_layer) +
         LightningLayers(model) * 2 * static_cast<double>(model.state_bytes());
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

}  // namespace

absl::StatusOr<DeviceRates> MeasureRates(kernels::Ops& ops, MemoryLedger& ledger) {
  // A GPU's best needs larger matrices than a CPU's, and can afford them.
  const int64_t size = ops.host_memory() ? 2048 : 8192, bytes = ops.host_memory() ? 256 << 20 : int64_t{2} << 30;
  DeviceRates rates;
  {
    const kernels::WeightPart part = {nullptr, kernels::DType::kBFloat16, size, size, 1};
    ASSIGN_OR_RETURN(const std::unique_ptr<kernels::Weight> weight, ops.PrepareWeight({part}));
    ASSIGN_OR_RETURN(MatMulBench bench, MatMulBench::Create(ops, ledger, size, size, size));
    ASSIGN_OR_RETURN(const double seconds, bench.Seconds(*weight));
    rates.flops = 2 * static_cast<double>(size) * static_cast<double>(size) * static_cast<double>(size) / seconds;
  }
  ASSIGN_OR_RETURN(const auto from, DeviceBuffer::Allocate(ops, ledger, MemoryOwner::kWorkspace, bytes));
  ASSIGN_OR_RETURN(const auto to, DeviceBuffer::Allocate(ops, ledger, MemoryOwner::kWorkspace, bytes));
  RETURN_IF_ERROR(ops.Zero(from.data(), bytes));
  RETURN_IF_ERROR(ops.Synchronize());
  ASSIGN_OR_RETURN(const auto copier, ops.NewCopier());
  ASSIGN_OR_RETURN(const double seconds, BestSeconds(ops, [&]() -> absl::Status {
                     RETURN_IF_ERROR(copier->OnDevice(to.data(), from.data(), bytes));
                     return copier->Wait();
                   }));
  rates.bytes_per_second = 2 * static_cast<double>(bytes) / seconds;
  return rates;
}

absl::StatusOr<Measurement> MeasurePrefill(const Model& model, MemoryLedger& ledger, const DeviceRates& rates,
                                           int64_t tokens, int64_t span_tokens) {
  const std::vector<int32_t> prompt = RandomTokens(tokens, model.config().vocab_size);
  const int64_t rows = std::min(tokens, span_tokens);
  ASSIGN_OR_RETURN(const double products, MeasureProducts(model, ledger, rows, /*logits=*/false));
  ASSIGN_OR_RETURN(const auto sequence, Sequence::Create(model, ledger, tokens));
  ASSIGN_OR_RETURN(const auto workspace, Workspace::Create(model, ledger, rows));
  ASSIGN_OR_RETURN(const auto activations, SpanActivations::Create(model, ledger, rows));
  const auto count = static_cast<double>(tokens);
  const double flops =
      count * ProductFlops(model, /*logits=*/false) + SparseLayers(model) * AttentionFlops(model, tokens);
  Measurement result;
  result.tokens = tokens;
  result.matmul_seconds = products * count / static_cast<double>(rows);
  result.floor_seconds =
      flops / rates.flops + count * LightningLayers(model) * LightningBytes(model) / rates.bytes_per_second;
  RETURN_IF_ERROR(Time(model.ops(), result, [&] { return Prefill(*sequence, *workspace, *activations, prompt); }));
  return result;
}

absl::StatusOr<std::unique_ptr<DecodeBenchmark>> DecodeBenchmark::Create(const Model& model, MemoryLedger& ledger,
                                                                         int64_t context, int64_t max_steps,
                                                                         int64_t span_tokens) {
  std::unique_ptr<DecodeBenchmark> bench(new DecodeBenchmark(model, ledger, context, max_steps));
  const std::vector<int32_t> prompt = RandomTokens(context, model.config().vocab_size);
  ASSIGN_OR_RETURN(bench->copier_, model.ops().NewCopier());
  ASSIGN_OR_RETURN(bench->sequence_, Sequence::Create(model, ledger, context + max_steps + kWarmSteps));
  ASSIGN_OR_RETURN(const auto workspace, Workspace::Create(model, ledger, span_tokens));
  ASSIGN_OR_RETURN(const auto activations, SpanActivations::Create(model, ledger, span_tokens));
  RETURN_IF_ERROR(Prefill(*bench->sequence_, *workspace, *activations, prompt));
  RETURN_IF_ERROR(model.ops().Synchronize());
  return bench;
}

absl::StatusOr<std::unique_ptr<Sequence>> DecodeBenchmark::CopyOfContext() {
  ASSIGN_OR_RETURN(auto copy, Sequence::Create(model_, ledger_, sequence_->max_tokens()));
  RETURN_IF_ERROR(model_.ops().Synchronize());
  for (int64_t layer = 0; layer < model_.layers(); ++layer) {
    if (!model_.is_sparse(layer)) {
      const absl::Span<std::byte> from = sequence_->State(layer), to = copy->State(layer);
      RETURN_IF_ERROR(copier_->OnDevice(to.data(), from.data(), static_cast<int64_t>(from.size())));
      continue;
    }
    const auto from = sequence_->KvBytes(layer, 0, context_), to = copy->KvBytes(layer, 0, context_);
    for (size_t i = 0; i < from.size(); ++i) {
      RETURN_IF_ERROR(copier_->OnDevice(to[i].data(), from[i].data(), static_cast<int64_t>(from[i].size())));
    }
    RETURN_IF_ERROR(copier_->Wait());
    RETURN_IF_ERROR(copy->ExtendTiers(layer, context_));
  }
  RETURN_IF_ERROR(copier_->Wait());
  return copy;
}

absl::StatusOr<Measurement> DecodeBenchmark::Measure(const DeviceRates& rates, int64_t batch, int64_t steps) {
  steps = std::min(steps, max_steps_);
  std::vector<std::unique_ptr<Sequence>> sequences(batch);
  for (auto& sequence : sequences) {
    ASSIGN_OR_RETURN(sequence, CopyOfContext());
  }
  ASSIGN_OR_RETURN(const double products, MeasureProducts(model_, ledger_, batch, /*logits=*/true));
  ASSIGN_OR_RETURN(const auto decode, DecodeForward::Create(model_, ledger_, batch));
  const std::vector<int32_t> tokens = RandomTokens(batch, model_.config().vocab_size);
  DrawRequests draws;
  for (int64_t i = 0; i < batch; ++i) draws.Add({}, {}, /*position=*/i, /*logprobs=*/-1);
  auto run = [&](int64_t from, int64_t to) -> absl::Status {
    for (int64_t number = from; number < to; ++number) {
      std::vector<DecodeRow> rows;
      for (int64_t i = 0; i < batch; ++i) rows.push_back({sequences[i].get(), tokens[i], context_ + number});
      RETURN_IF_ERROR(decode->Step(rows));
      RETURN_IF_ERROR(decode->Sample(draws).status());
    }
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(run(0, kWarmSteps));
  double weights = 0;
  for (const kernels::Weight* weight : Products(model_, /*logits=*/true))
    weights += static_cast<double>(weight->bytes());
  Measurement result;
  result.tokens = batch * steps;
  result.matmul_seconds = products * static_cast<double>(steps);
  // One token's arithmetic, where a CPU's batch is bound by it.
  const double flops = static_cast<double>(batch) * ProductFlops(model_, /*logits=*/true);
  const double bytes = weights + static_cast<double>(batch) * DecodeBytes(model_, context_);
  result.floor_seconds = static_cast<double>(steps) * std::max(flops / rates.flops, bytes / rates.bytes_per_second);
  RETURN_IF_ERROR(Time(model_.ops(), result, [&] { return run(kWarmSteps, kWarmSteps + steps); }));
  return result;
}

}  // namespace salamander::engine
