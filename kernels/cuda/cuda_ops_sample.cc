// Draws of tokens: rows with edits are copied first, since log-probabilities are of what the model said.
#include <algorithm>

#include "common/base/status_macros.h"
#include "kernels/cuda/cuda_ops.h"

namespace salamander::kernels::cuda {
namespace {

// Of one list on its way to the device.
constexpr size_t kListEdits = ListRing::kSegmentBytes / sizeof(LogitEdit);

int64_t EditedRows(absl::Span<const LogitEdit> edits) {
  int64_t rows = 0;
  for (size_t i = 0; i < edits.size(); ++i) rows += i == 0 || edits[i].row != edits[i - 1].row;
  return rows;
}

}  // namespace

absl::Status CudaOps::EditRows(const Matrix& logits, absl::Span<const LogitEdit> edits, float* copies,
                               std::vector<SampleItem>& items) {
  std::vector<LogitEdit> list;
  int32_t copy = -1;
  auto send = [&]() -> absl::Status {
    RETURN_IF_ERROR(Launch(OpSignature(OpKind::kSample),
                           {list.data(), static_cast<int64_t>(list.size() * sizeof(LogitEdit))},
                           [&](const void* on_device) {
                             return EditLogits(static_cast<const LogitEdit*>(on_device),
                                               static_cast<int64_t>(list.size()), copies, logits.cols, stream_);
                           }));
    list.clear();
    return absl::OkStatus();
  };
  for (size_t i = 0; i < edits.size(); ++i) {
    if (i == 0 || edits[i].row != edits[i - 1].row) {
      SampleItem& item = items[edits[i].row];
      item.edited = copies + ++copy * logits.cols;
      RETURN_IF_ERROR(Launch(OpSignature(OpKind::kSample), {}, [&](const void*) {
        return cudaMemcpyAsync(copies + copy * logits.cols, item.logits, logits.cols * sizeof(float),
                               cudaMemcpyDeviceToDevice, stream_);
      }));
    }
    list.push_back(edits[i]);
    list.back().row = copy;
    if (list.size() == kListEdits) RETURN_IF_ERROR(send());
  }
  return list.empty() ? absl::OkStatus() : send();
}

absl::Status CudaOps::Sample(const Matrix& logits, absl::Span<const SampleRow> rows, absl::Span<const LogitEdit> edits,
                             SampledToken* tokens, TokenLogprob* top, int64_t top_stride) {
  const auto count = static_cast<int64_t>(rows.size());
  if (count == 0) return absl::OkStatus();
  // The workspace: copies, then the results.
  const int64_t copy_bytes = AlignedListBytes(EditedRows(edits) * logits.cols * sizeof(float));
  const auto token_bytes = static_cast<int64_t>(count * sizeof(SampledToken));
  const auto top_bytes = static_cast<int64_t>(count * top_stride * sizeof(TokenLogprob));
  RETURN_IF_ERROR(CheckWorkspace(OpKind::kSample, copy_bytes + token_bytes + top_bytes));
  auto* const results = static_cast<std::byte*>(workspace_) + copy_bytes;
  auto* const tokens_there = reinterpret_cast<SampledToken*>(results);
  auto* const top_there = reinterpret_cast<TokenLogprob*>(results + token_bytes);

  std::vector<SampleItem> items(rows.size());
  for (int64_t i = 0; i < count; ++i) {
    const float* row = static_cast<const float*>(logits.data) + i * logits.stride;
    items[i] = {row, row, rows[i]};
  }
  RETURN_IF_ERROR(EditRows(logits, edits, static_cast<float*>(workspace_), items));
  RETURN_IF_ERROR(Launch(OpSignature(OpKind::kSample), {items.data(), static_cast<int64_t>(count * sizeof(SampleItem))},
                         [&](const void* list) {
                           return SampleTokens(static_cast<const SampleItem*>(list), count, logits.cols, tokens_there,
                                               top_there, top_stride, arch_, stream_);
                         }));
  RETURN_IF_ERROR(CopyToHost(tokens, tokens_there, token_bytes));
  return CopyToHost(top, top_there, top_bytes);
}

}  // namespace salamander::kernels::cuda
