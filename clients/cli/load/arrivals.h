// When requests arrive and how long they are: drawn at random, or read from a trace of real ones.
#ifndef SALAMANDER_CLIENTS_CLI_LOAD_ARRIVALS_H_
#define SALAMANDER_CLIENTS_CLI_LOAD_ARRIVALS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace salamander::cli {

struct Arrival {
  double seconds = 0;  // since the beginning
  int64_t input_tokens = 0;
  int64_t output_tokens = 0;
};

// Between the two, such that every octave is as likely as any other.
struct LengthRange {
  int64_t least = 1;
  int64_t most = 1;
};

struct PoissonOptions {
  double rate = 1;      // arrivals a second
  double seconds = 60;  // none later
  int64_t most = 0;     // arrivals
  LengthRange input, output;
  uint64_t seed = 0;
};

// Exponential gaps: arrivals that know nothing of each other. The same seed, the same arrivals.
std::vector<Arrival> PoissonArrivals(const PoissonOptions& options);

struct TraceLimits {
  double speed = 1;    // 2: twice as fast as it happened
  double seconds = 0;  // of the replay; none later
  int64_t most = 0;    // arrivals
};

// One JSON object a line, as in the public Mooncake traces: timestamp (milliseconds), input_length and output_length
// (tokens, at least 1); other fields are ignored, and so are empty lines. In order of time; the first line's time is
// the beginning. INVALID_ARGUMENT naming the line and what is wrong with it; also if there is no line at all.
absl::StatusOr<std::vector<Arrival>> ParseTrace(const std::string& text, const TraceLimits& limits);

}  // namespace salamander::cli

#endif  // SALAMANDER_CLIENTS_CLI_LOAD_ARRIVALS_H_
