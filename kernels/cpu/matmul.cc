#include "kernels/cpu/matmul.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_format.h"
#include "kernels/cpu/onednn.h"
#include "kernels/random_weight.h"

namespace salamander::kernels {
namespace {

constexpr int64_t kRowTile = 128;           // its inputs stay in the second cache
constexpr int64_t kOneDnnRows = 64;         // fewer rows pay more for its set-up than they gain
constexpr int64_t kTaskProducts = 1 << 19;  // multiply-adds worth waking a thread for

// Number i of a part, as float32. Checkpoints may hold weights at odd addresses.
float ValueAt(const WeightPart& part, int64_t i) {
  float value;
  if (part.data == nullptr) return RandomWeight(part.seed, i, RandomWeightScale(part.cols));
  if (part.type == DType::kFloat32) {
    std::memcpy(&value, static_cast<const char*>(part.data) + 4 * i, sizeof(value));
    return value;
  }
  uint16_t half;
  std::memcpy(&half, static_cast<const char*>(part.data) + 2 * i, sizeof(half));
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// oneDNN runs on the calling thread alone while one of these lives.
class SingleOmpThread {
 public:
  SingleOmpThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~SingleOmpThread() { omp_set_num_threads(before_); }

 private:
  int before_;
};

// One panel by oneDNN. Its bias is added afterwards.
dnnl_status_t MultiplyByOneDnn(decltype(&dnnl_sgemm) sgemm, const MatMulTask& task) {
  const SingleOmpThread single;
  for (int64_t first = 0; first < task.out; first += kWeightPanel) {
    const int64_t count = std::min(kWeightPanel, task.out - first);
    const dnnl_status_t status =
        sgemm('N', 'N', task.rows, count, task.in, 1, task.x.data, task.x.stride, task.panels + first * task.in,
              kWeightPanel, 0, task.y.data + first, task.y.stride);
    if (status != dnnl_success) return status;
  }
  for (int64_t r = 0; task.bias != nullptr && r < task.rows; ++r) {
    for (int64_t o = 0; o < task.out; ++o) task.y.data[r * task.y.stride + o] += task.bias[o];
  }
  return dnnl_success;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CpuWeight>> CpuWeight::Create(absl::Span<const WeightPart> parts) {
  std::unique_ptr<CpuWeight> weight(new CpuWeight());
  for (const WeightPart& part : parts) {
    weight->in_ = part.cols;
    weight->out_ += part.rows;
  }
  weight->data_ = static_cast<float*>(std::aligned_alloc(64, weight->bytes()));
  if (weight->data_ == nullptr) {
    return absl::ResourceExhaustedError(absl::StrFormat("no memory for a weight of %d bytes", weight->bytes()));
  }
  int64_t out = 0;
  for (const WeightPart& part : parts) {
    for (int64_t r = 0; r < part.rows; ++r, ++out) {
      float* column = weight->data_ + out / kWeightPanel * weight->in_ * kWeightPanel + out % kWeightPanel;
      for (int64_t i = 0; i < part.cols; ++i) column[i * kWeightPanel] = ValueAt(part, r * part.cols + i);
    }
  }
  for (; out % kWeightPanel != 0; ++out) {
    float* column = weight->data_ + out / kWeightPanel * weight->in_ * kWeightPanel + out % kWeightPanel;
    for (int64_t i = 0; i < weight->in_; ++i) column[i * kWeightPanel] = 0;
  }
  return weight;
}

CpuWeight::~CpuWeight() { std::free(data_); }

int64_t CpuWeight::bytes() const { return panels() * in_ * kWeightPanel * static_cast<int64_t>(sizeof(float)); }

void CpuWeight::Gather(int64_t row, float scale, float* out) const {
  const float* column = panel(row / kWeightPanel) + row % kWeightPanel;
  for (int64_t i = 0; i < in_; ++i) out[i] = column[i * kWeightPanel] * scale;
}

absl::Status Multiply(const KernelTable& kernels, CpuIsa isa, ForkJoin& pool, const Matrix& x, const CpuWeight& weight,
                      const float* bias, const Matrix& y) {
  // Tasks are tiles of rows; with few rows, also groups of panels.
  const int64_t tiles = (x.rows + kRowTile - 1) / kRowTile;
  const int64_t products = x.rows * weight.in_features() * weight.out_features();
  const int64_t wanted = pool.threads() == 1 ? 1 : std::min<int64_t>(4 * pool.threads(), products / kTaskProducts);
  const int64_t groups = std::clamp<int64_t>(tiles == 0 ? 1 : wanted / tiles, 1, std::max<int64_t>(1, weight.panels()));
  const int64_t step = (weight.panels() + groups - 1) / groups;
  const auto sgemm = isa == CpuIsa::kPortable ? OneDnnSgemm() : nullptr;
  std::atomic<int> failure = dnnl_success;
  pool.Run(tiles * groups, [&](int64_t i, int) {
    const int64_t row = i / groups * kRowTile, panel = i % groups * step, first = panel * kWeightPanel;
    if (panel >= weight.panels()) return;
    const MatMulTask task = {
        .rows = std::min(kRowTile, x.rows - row),
        .in = weight.in_features(),
        .out = std::min(step * kWeightPanel, weight.out_features() - first),
        .x = {static_cast<float*>(x.data) + row * x.stride, x.stride},
        .panels = weight.panel(panel),
        .bias = bias != nullptr ? bias + first : nullptr,
        .y = {static_cast<float*>(y.data) + row * y.stride + first, y.stride},
    };
    if (task.rows >= kOneDnnRows && sgemm != nullptr) {
      if (const dnnl_status_t status = MultiplyByOneDnn(sgemm, task); status != dnnl_success) failure = status;
    } else {
      kernels.matmul(task);
    }
  });
  if (failure == dnnl_success) return absl::OkStatus();
  return absl::InternalError(absl::StrFormat("oneDNN sgemm of %d x %d x %d failed with status %d", x.rows,
                                             weight.out_features(), weight.in_features(), failure.load()));
}

}  // namespace salamander::kernels
