// Rows times a weight in panels (see ../matmul.h).
#ifndef SALAMANDER_KERNELS_CPU_BODY_MATMUL_H_
#define SALAMANDER_KERNELS_CPU_BODY_MATMUL_H_

#include <cstdint>

#include "kernels/cpu/body/gemm.h"
#include "kernels/cpu/body/math.h"
#include "kernels/cpu/kernel_table.h"

namespace salamander::kernels::body {

// Inputs taken at a time: a piece of a panel is then 128 KiB, which stays in the second cache for all rows.
inline constexpr int64_t kInputStep = 512;

// y [rows, 64] = x · panel
template <class V>
void MultiplyPanel(int64_t rows, int64_t in, Rows x, const float* panel, Rows y) {
  for (int64_t i = 0; i < in; i += kInputStep) {
    const int64_t count = in - i < kInputStep ? in - i : kInputStep;
    const GemmA a = {x.data + i, x.stride, 1};
    const float* b = panel + i * kWeightPanel;
    if (i == 0) {
      Gemm<V>(rows, kWeightPanel, count, a, b, kWeightPanel, y.data, y.stride);
    } else {
      Gemm<V, GemmStart::kAdd>(rows, kWeightPanel, count, a, b, kWeightPanel, y.data, y.stride);
    }
  }
}

template <class V>
void MatMul(const MatMulTask& task) {
  for (int64_t first = 0; first < task.out; first += kWeightPanel) {
    const float* panel = task.panels + first * task.in;
    const int64_t count = task.out - first < kWeightPanel ? task.out - first : kWeightPanel;
    if (count == kWeightPanel) {
      MultiplyPanel<V>(task.rows, task.in, task.x, panel, {task.y.data + first, task.y.stride});
    } else {
      // The last panel is wider than y.
      float part[16 * kWeightPanel];
      for (int64_t r = 0; r < task.rows; r += 16) {
        const int64_t rows = task.rows - r < 16 ? task.rows - r : 16;
        MultiplyPanel<V>(rows, task.in, {task.x.data + r * task.x.stride, task.x.stride}, panel, {part, kWeightPanel});
        for (int64_t i = 0; i < rows; ++i) {
          float* y = task.y.data + (r + i) * task.y.stride + first;
          for (int64_t c = 0; c < count; ++c) y[c] = part[i * kWeightPanel + c];
        }
      }
    }
  }
  for (int64_t r = 0; task.bias != nullptr && r < task.rows; ++r) {
    float* y = task.y.data + r * task.y.stride;
    ForVectors<V>(task.out, [&](int64_t i, int lanes) {
      StoreAny<V>(y + i, LoadAny<V>(y + i, lanes) + LoadAny<V>(task.bias + i, lanes), lanes);
    });
  }
}

}  // namespace salamander::kernels::body

#endif  // SALAMANDER_KERNELS_CPU_BODY_MATMUL_H_
