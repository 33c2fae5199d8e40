// What products of few rows take with the weights of the released model, over the time to read the weight once.
#include "absl/strings/str_format.h"
#include "kernels/cuda/launch.h"
#include "tests/kernels/cuda/bench.h"

namespace salamander::kernels::cuda {
namespace {

struct Shape {
  const char* name;
  int64_t in, out;
  bool logits;
};
constexpr Shape kShapes[] = {
    {"o", 4096, 4096, false},        {"sparse q k v gate", 4096, 8704, false},
    {"q k v z", 4096, 16384, false}, {"gate up", 4096, 32768, false},
    {"down", 16384, 4096, false},    {"lm_head", 4096, 73448, true},
};
constexpr int64_t kArena = int64_t{640} << 20;  // elements: more than two of the largest weight, and than any cache

// A decode step's lightning layer but for the attention itself: how much of a step launches and short kernels take.
void LayerCase(const bf16* weights, int64_t rows) {
  constexpr int64_t kHidden = 4096, kIntermediate = 16384, kFused = 4 * kHidden;
  constexpr int64_t kSize = kHidden * (kFused + kHidden + 3 * kIntermediate);
  const float* norm = BenchArray<float>(kHidden);
  float* hidden = BenchArray<float>(rows * kHidden);
  bf16* x = BenchArray<bf16>(rows * kHidden);
  bf16* y = BenchArray<bf16>(rows * kHidden);
  bf16* fused = BenchArray<bf16>(rows * kFused);
  bf16* gate_up = BenchArray<bf16>(rows * 2 * kIntermediate);
  bf16* activated = BenchArray<bf16>(rows * kIntermediate);
  const double microseconds = Microseconds([&](int i, cudaStream_t stream) {
    const bf16* weight = weights + i % (kArena / kSize) * kSize;
    auto product = [&](ConstRows from, int64_t in, bf16* to, int64_t out) {
      Check(Gemv({.x = from, .weight = weight, .rows = rows, .in = in, .out = out, .y = {to, out}}, stream));
      weight += in * out;
    };
    auto normalize = [&] {
      Check(AddRmsNorm({hidden, kHidden}, {y, kHidden}, 0.25f, norm, 1e-6f, 1, {x, kHidden}, rows, kHidden, stream));
    };
    normalize();
    product({x, kHidden}, kHidden, fused, kFused);
    for (bf16* head : {fused, fused + kHidden}) {
      Check(HeadNormRope({head, kFused}, rows, 32, 128, norm, 1e-6f, 10000, nullptr, 1000000, stream));
    }
    Check(NormGate({fused, kFused}, norm, 1e-6f, {fused + 3 * kHidden, kFused}, rows, kHidden, stream));
    product({fused, kFused}, kHidden, y, kHidden);
    normalize();
    product({x, kHidden}, kHidden, gate_up, 2 * kIntermediate);
    Check(SiluMul({gate_up, 2 * kIntermediate}, {activated, kIntermediate}, rows, kIntermediate, stream));
    product({activated, kIntermediate}, kIntermediate, y, kHidden);
  });
  Report(absl::StrFormat("layer without attention, %d rows", rows), microseconds,
         2.0 * static_cast<double>(rows * kSize), 2.0 * kSize);
}

}  // namespace
}  // namespace salamander::kernels::cuda

int main() {
  using namespace salamander::kernels::cuda;
  if (!PrintDevice()) return 0;
  const bf16* weights = BenchArray<bf16>(kArena);
  const bf16* x = BenchArray<bf16>(kGemvRows * 16384);
  bf16* y = BenchArray<bf16>(kGemvRows * 73448);
  float* logits = BenchArray<float>(kGemvRows * 73448);
  for (const Shape& shape : kShapes) {
    const int64_t size = shape.in * shape.out, copies = kArena / size;
    for (int64_t rows : {1, 2, 4, 8, 12, 16}) {
      GemvParams params = {.x = {x, shape.in}, .rows = rows, .in = shape.in, .out = shape.out};
      if (shape.logits) {
        params.logits = logits;
        params.logits_stride = shape.out;
      } else {
        params.y = {y, shape.out};
      }
      const double microseconds = Microseconds([&](int i, cudaStream_t stream) {
        params.weight = weights + i % copies * size;
        Check(Gemv(params, stream));
      });
      const double bytes = 2.0 * static_cast<double>(size + rows * shape.in) +
                           (shape.logits ? 4.0 : 2.0) * static_cast<double>(rows * shape.out);
      Report(absl::StrFormat("Gemv %s, %d rows", shape.name, rows), microseconds,
             2.0 * static_cast<double>(rows * size), bytes);
    }
  }
  for (int64_t rows : {1, 8, 16}) LayerCase(weights, rows);
}
