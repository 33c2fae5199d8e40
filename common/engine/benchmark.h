// What `salamander bench` measures: prefill and decode of a model on a backend, the share of time per kind of
// operation, and beside it two floors: the time of the matrix products alone, measured, and the time that all
// arithmetic and all bytes of memory would take at the device's measured best rates.
#ifndef SALAMANDER_COMMON_ENGINE_BENCHMARK_H_
#define SALAMANDER_COMMON_ENGINE_BENCHMARK_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/memory_ledger.h"
#include "common/engine/forward.h"
#include "common/engine/model.h"

namespace salamander::engine {

// The best a device does, measured.
struct DeviceRates {
  double flops = 0;             // a second, in a product of two large matrices of random numbers
  double bytes_per_second = 0;  // read and written, in a large copy
};
absl::StatusOr<DeviceRates> MeasureRates(kernels::Ops& ops, MemoryLedger& ledger);

struct Measurement {
  int64_t tokens = 0;
  double seconds = 0;
  double matmul_seconds = 0;                 // the matrix products of these tokens alone, measured
  double floor_seconds = 0;                  // arithmetic and memory at the device's rates
  std::map<std::string, double> op_seconds;  // as the backend counts them; empty if it does not

  double tokens_per_second() const { return static_cast<double>(tokens) / seconds; }
};

// A prompt of `tokens` random tokens in spans of `span_tokens`.
absl::StatusOr<Measurement> MeasurePrefill(const Model& model, MemoryLedger& ledger, const DeviceRates& rates,
                                           int64_t tokens, int64_t span_tokens);

// Decoding after a context of random tokens.
class DecodeBenchmark {
 public:
  // Computes the context, of `context` tokens, once; up to `max_steps` steps are measured on it at a time.
  static absl::StatusOr<std::unique_ptr<DecodeBenchmark>> Create(const Model& model, MemoryLedger& ledger,
                                                                 int64_t context, int64_t max_steps,
                                                                 int64_t span_tokens);
  // `steps` steps of `batch` sequences that all hold the context.
  absl::StatusOr<Measurement> Measure(const DeviceRates& rates, int64_t batch, int64_t steps);

 private:
  DecodeBenchmark(const Model& model, MemoryLedger& ledger, int64_t context, int64_t max_steps)
      : model_(model), ledger_(ledger), context_(context), max_steps_(max_steps) {}
  absl::StatusOr<std::unique_ptr<Sequence>> CopyOfContext();

  const Model& model_;
  MemoryLedger& ledger_;
  const int64_t context_, max_steps_;
  std::unique_ptr<Sequence> sequence_;
  std::unique_ptr<kernels::Copier> copier_;
};

}  // namespace salamander::engine

#endif  // SALAMANDER_COMMON_ENGINE_BENCHMARK_H_
