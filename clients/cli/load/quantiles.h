// What a sample of measurements looks like.
#ifndef SALAMANDER_CLIENTS_CLI_LOAD_QUANTILES_H_
#define SALAMANDER_CLIENTS_CLI_LOAD_QUANTILES_H_

#include <cstdint>
#include <vector>

namespace salamander::cli {

// All zero for an empty sample.
struct Quantiles {
  int64_t count = 0;
  double mean = 0, p50 = 0, p90 = 0, p99 = 0, max = 0;
};

// By the nearest rank: the p-quantile of n values is the ⌈p·n⌉-th smallest, so it is one of them.
Quantiles QuantilesOf(std::vector<double> values);

}  // namespace salamander::cli

#endif  // SALAMANDER_CLIENTS_CLI_LOAD_QUANTILES_H_
