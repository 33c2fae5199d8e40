// The operations that are kernels of launch.h.
#include <algorithm>
#include <array>
#include <cstddef>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "kernels/cuda/cuda_ops.h"

namespace salamander::kernels::cuda {
namespace {

constexpr std::array<int64_t, 3> kHeadDims = {32, 64, 128};
constexpr int64_t kMaxGroup = 16;

ConstRows In(const Matrix& m) { return {static_cast<const bf16*>(m.data), m.stride}; }
Rows Out(const Matrix& m) { return {static_cast<bf16*>(m.data), m.stride}; }
FloatRows Residual(const Matrix& m) { return {static_cast<float*>(m.data), m.stride}; }

// Lists go to the device as they are.
template <typename Host, typename Device>
constexpr bool SameForm() {
  return sizeof(Host) == sizeof(Device) && offsetof(Host, row) == offsetof(Device, row) &&
         offsetof(Host, rows) == offsetof(Device, rows) && offsetof(Host, position) == offsetof(Device, position);
}
static_assert(SameForm<SparseRows, SparseSequence>() && offsetof(SparseRows, pages) == offsetof(SparseSequence, pages));
static_assert(SameForm<LightningRows, LightningSequence>() &&
              offsetof(LightningRows, state) == offsetof(LightningSequence, state));

template <typename T>
int64_t ByteSize(absl::Span<const T> list) {
  return static_cast<int64_t>(list.size() * sizeof(T));
}

template <typename... Args>
OpSignature SignatureOf(OpKind kind, const SparseShape& shape, const Args&... args) {
  return OpSignature(kind, shape.heads, shape.kv.kv_heads, shape.kv.head_dim, shape.init_blocks, shape.local_blocks,
                     shape.top_blocks, args...);
}

bool Consecutive(absl::Span<const int64_t> positions) {
  return std::adjacent_find(positions.begin(), positions.end(), [](int64_t a, int64_t b) { return b != a + 1; }) ==
         positions.end();
}

}  // namespace

absl::Status CudaOps::CheckHeadDim(OpKind kind, int64_t head_dim) const {
  if (std::find(kHeadDims.begin(), kHeadDims.end(), head_dim) != kHeadDims.end()) return absl::OkStatus();
  return Note(absl::InvalidArgumentError(
      absl::StrCat("cuda: ", OpName(kind), ": head_dim must be 32, 64 or 128, got ", head_dim)));
}

absl::Status CudaOps::CheckHeads(OpKind kind, int64_t heads, int64_t kv_heads, int64_t head_dim) const {
  RETURN_IF_ERROR(CheckHeadDim(kind, head_dim));
  if (kv_heads >= 1 && heads % kv_heads == 0) return absl::OkStatus();
  return Note(absl::InvalidArgumentError(
      absl::StrCat("cuda: ", OpName(kind), ": kv_heads must divide ", heads, " heads, got ", kv_heads)));
}

template <typename T>
absl::StatusOr<CudaOps::Bounds> CudaOps::BoundsOf(OpKind kind, absl::Span<const T> sequences) const {
  Bounds bounds;
  for (const T& sequence : sequences) {
    bounds.max_rows = std::max(bounds.max_rows, sequence.rows);
    bounds.max_tokens = std::max(bounds.max_tokens, sequence.position + sequence.rows);
  }
  if (!repeats_->active()) return bounds;
  const RepeatKey& key = repeats_->key();
  auto broken = [&](const char* what, int64_t limit, int64_t got) {
    return Note(absl::InvalidArgumentError(
        absl::StrCat("cuda: ", OpName(kind), ": ", what, " of a repeat must be ", limit, ", got ", got)));
  };
  if (static_cast<int64_t>(sequences.size()) != key.rows) return broken("sequences", key.rows, sequences.size());
  if (bounds.max_rows > 1) return broken("rows of a sequence, at most,", 1, bounds.max_rows);
  if (bounds.max_tokens > key.max_tokens) {
    return broken("tokens of a sequence, at most,", key.max_tokens, bounds.max_tokens);
  }
  return Bounds{1, key.max_tokens};
}

absl::Status CudaOps::CheckWorkspace(OpKind kind, int64_t bytes) const {
  if (bytes <= kWorkspaceBytes) return absl::OkStatus();
  return Note(absl::ResourceExhaustedError(
      absl::StrCat("cuda: ", OpName(kind), " needs ", bytes, " bytes of workspace, there are ", kWorkspaceBytes)));
}

absl::Status CudaOps::Embed(absl::Span<const int32_t> tokens, const Weight& table, float scale, const Matrix& hidden) {
  if (tokens.empty()) return absl::OkStatus();
  const bf16* data = static_cast<const CudaWeight&>(table).data();
  return Launch(OpSignature(OpKind::kEmbed, hidden, data, scale), {tokens.data(), ByteSize(tokens)},
                [&](const void* list) {
                  return cuda::Embed(static_cast<const int32_t*>(list), static_cast<int64_t>(tokens.size()),
                                     hidden.cols, data, scale, Residual(hidden), stream_);
                });
}

absl::Status CudaOps::AddRmsNorm(const Matrix& hidden, const Matrix& delta, float delta_scale, const float* norm,
                                 float eps, float x_scale, const Matrix& x) {
  if (hidden.rows == 0) return absl::OkStatus();
  return Launch(OpSignature(OpKind::kAddRmsNorm, hidden, delta, delta_scale, norm, eps, x_scale, x), {},
                [&](const void*) {
                  return cuda::AddRmsNorm(Residual(hidden), In(delta), delta_scale, norm, eps, x_scale, Out(x),
                                          hidden.rows, hidden.cols, stream_);
                });
}

absl::Status CudaOps::HeadNormRope(const Matrix& x, int64_t head_dim, const float* norm, float eps, float theta,
                                   absl::Span<const int64_t> positions) {
  RETURN_IF_ERROR(CheckHeadDim(OpKind::kHeadNormRope, head_dim));
  if (x.rows == 0) return absl::OkStatus();
  // Rows of a span need no list; but a number that a graph bakes in must not change.
  const bool listed = theta != 0 && (repeats_->active() || !Consecutive(positions));
  const HostList list = listed ? HostList{positions.data(), ByteSize(positions)} : HostList{};
  return Launch(OpSignature(OpKind::kHeadNormRope, x, head_dim, norm, eps, theta), list, [&](const void* on_device) {
    return cuda::HeadNormRope(Out(x), x.rows, x.cols / head_dim, head_dim, norm, eps, theta,
                              static_cast<const int64_t*>(on_device), theta == 0 || listed ? 0 : positions[0], stream_);
  });
}

absl::Status CudaOps::SiluMul(const Matrix& gate_up, const Matrix& out) {
  if (out.rows == 0) return absl::OkStatus();
  return Launch(OpSignature(OpKind::kSiluMul, gate_up, out), {},
                [&](const void*) { return cuda::SiluMul(In(gate_up), Out(out), out.rows, out.cols, stream_); });
}

absl::Status CudaOps::NormGate(const Matrix& x, const float* norm, float eps, const Matrix& gate) {
  if (x.rows == 0) return absl::OkStatus();
  return Launch(OpSignature(OpKind::kNormGate, x, norm, eps, gate), {},
                [&](const void*) { return cuda::NormGate(Out(x), norm, eps, In(gate), x.rows, x.cols, stream_); });
}

absl::StatusOr<const float*> CudaOps::SlopesOnDevice(const std::vector<float>& slopes) {
  for (const auto& [values, on_device] : slopes_) {
    if (values == slopes) return on_device;
  }
  const int64_t bytes = static_cast<int64_t>(slopes.size() * sizeof(float));
  ASSIGN_OR_RETURN(void* const memory, Allocate(bytes));
  own_bytes_ += memory_->BytesOf(memory);
  RETURN_IF_ERROR(CopyToDevice(memory, slopes.data(), bytes));
  return slopes_.emplace_back(slopes, static_cast<const float*>(memory)).second;
}

absl::Status CudaOps::Lightning(const LightningShape& shape, const Matrix& q, const Matrix& k, const Matrix& v,
                                absl::Span<const LightningRows> sequences, const Matrix& out) {
  constexpr OpKind kKind = OpKind::kLightning;
  RETURN_IF_ERROR(CheckHeads(kKind, shape.heads, shape.kv_heads, shape.head_dim));
  if (static_cast<int64_t>(shape.slopes.size()) != shape.heads) {
    return Note(absl::InvalidArgumentError(absl::StrCat("cuda: lightning: slopes must be as many as the ", shape.heads,
                                                        " heads, got ", shape.slopes.size())));
  }
  ASSIGN_OR_RETURN(const Bounds bounds, BoundsOf(kKind, sequences));
  if (bounds.max_rows == 0) return absl::OkStatus();
  const absl::StatusOr<const float*> slopes = SlopesOnDevice(shape.slopes);
  if (!slopes.ok()) return Note(slopes.status());
  LightningParams params = {.heads = shape.heads,
                            .kv_heads = shape.kv_heads,
                            .dim = shape.head_dim,
                            .scale = shape.scale,
                            .slopes = *slopes,
                            .count = static_cast<int64_t>(sequences.size()),
                            .max_rows = bounds.max_rows,
                            .arch = arch_,
                            .multiprocessors = multiprocessors_};
  RETURN_IF_ERROR(CheckWorkspace(kKind, LightningWorkspaceBytes(params)));
  const OpSignature op(kKind, shape.heads, shape.kv_heads, shape.head_dim, shape.scale, *slopes, q, k, v, out);
  return Launch(op, {sequences.data(), ByteSize(sequences)}, [&](const void* list) {
    params.sequences = static_cast<const LightningSequence*>(list);
    return cuda::Lightning(params, In(q), In(k), In(v), Out(out), workspace_, stream_);
  });
}

absl::StatusOr<SparseParams> CudaOps::ParamsOf(OpKind kind, const SparseShape& shape,
                                               absl::Span<const SparseRows> sequences) const {
  RETURN_IF_ERROR(CheckHeads(kind, shape.heads, shape.kv.kv_heads, shape.kv.head_dim));
  if (const int64_t group = shape.heads / shape.kv.kv_heads; group > kMaxGroup) {
    return Note(absl::InvalidArgumentError(
        absl::StrCat("cuda: ", OpName(kind), ": heads / kv_heads must be at most ", kMaxGroup, ", got ", group)));
  }
  if (shape.kv.type != DType::kBFloat16) {
    return Note(absl::InvalidArgumentError(absl::StrCat("cuda: ", OpName(kind), ": keys and values must be BF16")));
  }
  ASSIGN_OR_RETURN(const Bounds bounds, BoundsOf(kind, sequences));
  return SparseParams{.kv = shape.kv,
                      .heads = shape.heads,
                      .init_blocks = shape.init_blocks,
                      .local_blocks = shape.local_blocks,
                      .top_blocks = shape.top_blocks,
                      .count = static_cast<int64_t>(sequences.size()),
                      .max_rows = bounds.max_rows,
                      .max_tokens = bounds.max_tokens,
                      .arch = arch_,
                      .multiprocessors = multiprocessors_};
}

absl::Status CudaOps::AppendKv(const SparseShape& shape, const Matrix& k, const Matrix& v,
                               absl::Span<const SparseRows> sequences) {
  ASSIGN_OR_RETURN(SparseParams params, ParamsOf(OpKind::kAppendKv, shape, sequences));
  if (params.max_rows == 0) return absl::OkStatus();
  return Launch(SignatureOf(OpKind::kAppendKv, shape, k, v), {sequences.data(), ByteSize(sequences)},
                [&](const void* list) {
                  params.sequences = static_cast<const SparseSequence*>(list);
                  return cuda::AppendKv(params, In(k), In(v), stream_);
                });
}

absl::Status CudaOps::PoolTiers(const SparseShape& shape, absl::Span<const SparseRows> sequences) {
  ASSIGN_OR_RETURN(SparseParams params, ParamsOf(OpKind::kPoolTiers, shape, sequences));
  if (params.max_rows == 0) return absl::OkStatus();
  return Launch(SignatureOf(OpKind::kPoolTiers, shape), {sequences.data(), ByteSize(sequences)}, [&](const void* list) {
    params.sequences = static_cast<const SparseSequence*>(list);
    return cuda::PoolTiers(params, stream_);
  });
}

absl::Status CudaOps::SelectBlocks(const SparseShape& shape, const Matrix& q, absl::Span<const SparseRows> sequences,
                                   int32_t* blocks) {
  ASSIGN_OR_RETURN(SparseParams params, ParamsOf(OpKind::kSelectBlocks, shape, sequences));
  if (params.max_rows == 0) return absl::OkStatus();
  RETURN_IF_ERROR(CheckWorkspace(OpKind::kSelectBlocks, SelectWorkspaceBytes(params)));
  return Launch(SignatureOf(OpKind::kSelectBlocks, shape, q, blocks), {sequences.data(), ByteSize(sequences)},
                [&](const void* list) {
                  params.sequences = static_cast<const SparseSequence*>(list);
                  return cuda::SelectBlocks(params, In(q), blocks, workspace_, stream_);
                });
}

absl::Status CudaOps::AttendBlocks(const SparseShape& shape, const Matrix& q, absl::Span<const SparseRows> sequences,
                                   const int32_t* blocks, const Matrix& out) {
  ASSIGN_OR_RETURN(SparseParams params, ParamsOf(OpKind::kAttendBlocks, shape, sequences));
  if (params.max_rows == 0) return absl::OkStatus();
  RETURN_IF_ERROR(CheckWorkspace(OpKind::kAttendBlocks, AttendWorkspaceBytes(params)));
  return Launch(SignatureOf(OpKind::kAttendBlocks, shape, q, blocks, out), {sequences.data(), ByteSize(sequences)},
                [&](const void* list) {
                  params.sequences = static_cast<const SparseSequence*>(list);
                  return cuda::AttendBlocks(params, In(q), blocks, Out(out), workspace_, stream_);
                });
}

absl::Status CudaOps::AttendDense(const SparseShape& shape, const Matrix& q, absl::Span<const SparseRows> sequences,
                                  const Matrix& out) {
  ASSIGN_OR_RETURN(SparseParams params, ParamsOf(OpKind::kAttendDense, shape, sequences));
  if (params.max_rows == 0) return absl::OkStatus();
  RETURN_IF_ERROR(CheckWorkspace(OpKind::kAttendDense, AttendWorkspaceBytes(params)));
  return Launch(SignatureOf(OpKind::kAttendDense, shape, q, out), {sequences.data(), ByteSize(sequences)},
                [&](const void* list) {
                  params.sequences = static_cast<const SparseSequence*>(list);
                  return cuda::AttendDense(params, In(q), Out(out), workspace_, stream_);
                });
}

}  // namespace salamander::kernels::cuda
