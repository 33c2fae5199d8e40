// What engine_bench measures: prefill and decode rates of a model on a backend, the share of time per kind of
// operation, and the floor that the same matrix products set when nothing else runs.
#ifndef SALAMANDER_TESTS_COMMON_ENGINE_BENCH_MEASURE_H_
#define SALAMANDER_TESTS_COMMON_ENGINE_BENCH_MEASURE_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/memory_ledger.h"
#include "common/engine/model.h"

namespace salamander::engine {

struct Measurement {
  int64_t tokens = 0;
  double seconds = 0;
  // Of the matrix products of these tokens alone, measured.
  double matmul_floor_seconds = 0;
  double gflop = 0;  // in matrix products
  // By operation, as the backend counts them; empty if it does not.
  std::map<std::string, double> op_seconds;

  double tokens_per_second() const { return static_cast<double>(tokens) / seconds; }
};

// A prompt of `tokens` random tokens in spans of `span_tokens`.
absl::StatusOr<Measurement> MeasurePrefill(const Model& model, MemoryLedger& ledger, int64_t tokens,
                                           int64_t span_tokens);

// `steps` steps of a batch of sequences that each hold `context` tokens.
absl::StatusOr<Measurement> MeasureDecode(const Model& model, MemoryLedger& ledger, int64_t batch, int64_t context,
                                          int64_t steps, int64_t span_tokens);

// The best rate of a product of two [size, size] matrices, GFLOP/s.
absl::StatusOr<double> MeasureMatMulRate(kernels::Ops& ops, MemoryLedger& ledger, int64_t size);

}  // namespace salamander::engine

#endif  // SALAMANDER_TESTS_COMMON_ENGINE_BENCH_MEASURE_H_
