#include "clients/cli/load/quantiles.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace salamander::cli {

Quantiles QuantilesOf(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto count = static_cast<double>(values.size());
  const auto at = [&](double p) {
    const auto rank = static_cast<size_t>(std::ceil(p * count));
    return values[std::max<size_t>(rank, 1) - 1];
  };
  return {.count = static_cast<int64_t>(values.size()),
          .mean = std::accumulate(values.begin(), values.end(), 0.0) / count,
          .p50 = at(0.5),
          .p90 = at(0.9),
          .p99 = at(0.99),
          .max = values.back()};
}

}  // namespace salamander::cli
