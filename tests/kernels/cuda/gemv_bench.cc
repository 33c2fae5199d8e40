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
}
