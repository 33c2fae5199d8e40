#include "clients/cli/load/arrivals.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/status_macros.h"

namespace salamander::cli {
namespace {

// Uniform in [0, 1). Not std::uniform_real_distribution, whose numbers are each library's own.
double Uniform(std::mt19937_64& random) { return static_cast<double>(random() >> 11) * 0x1p-53; }

int64_t Draw(const LengthRange& range, std::mt19937_64& random) {
  const double ratio = static_cast<double>(range.most) / static_cast<double>(range.least);
  const double length = static_cast<double>(range.least) * std::pow(ratio, Uniform(random));
  return std::clamp<int64_t>(std::llround(length), range.least, range.most);
}

absl::StatusOr<double> NumberField(const nlohmann::json& line, const char* name, double least) {
  const auto found = line.find(name);
  if (found == line.end()) return absl::InvalidArgumentError(absl::StrCat(name, " is missing"));
  if (!found->is_number()) return absl::InvalidArgumentError(absl::StrCat(name, " is no number: ", found->dump()));
  const double value = found->get<double>();
  if (!(value >= least))
    return absl::InvalidArgumentError(absl::StrCat(name, " must be at least ", least, ", got ", value));
  return value;
}

absl::StatusOr<int64_t> LengthField(const nlohmann::json& line, const char* name) {
  constexpr double kMost = 1e9;  // beyond any model; a sum of such is still exact
  ASSIGN_OR_RETURN(const double value, NumberField(line, name, 1));
  if (value > kMost || value != std::floor(value)) {
    return absl::InvalidArgumentError(absl::StrCat(name, " must be a whole number up to 1e9, got ", value));
  }
  return static_cast<int64_t>(value);
}

absl::StatusOr<Arrival> ParseLine(absl::string_view text) {
  const auto line = nlohmann::json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!line.is_object()) return absl::InvalidArgumentError("not a JSON object");
  Arrival arrival;
  ASSIGN_OR_RETURN(const double milliseconds, NumberField(line, "timestamp", 0));
  arrival.seconds = milliseconds / 1000;
  ASSIGN_OR_RETURN(arrival.input_tokens, LengthField(line, "input_length"));
  ASSIGN_OR_RETURN(arrival.output_tokens, LengthField(line, "output_length"));
  return arrival;
}

}  // namespace

std::vector<Arrival> PoissonArrivals(const PoissonOptions& options) {
  std::mt19937_64 random(options.seed);
  std::vector<Arrival> arrivals;
  double now = 0;
  while (static_cast<int64_t>(arrivals.size()) < options.most) {
    now -= std::log1p(-Uniform(random)) / options.rate;
    if (now >= options.seconds) break;
    // In the order of the fields, one after the other: the draws are a sequence.
    const int64_t input = Draw(options.input, random);
    const int64_t output = Draw(options.output, random);
    arrivals.push_back({.seconds = now, .input_tokens = input, .output_tokens = output});
  }
  return arrivals;
}

absl::StatusOr<std::vector<Arrival>> ParseTrace(const std::string& text, const TraceLimits& limits) {
  std::vector<Arrival> arrivals;
  int64_t number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line);
    if (line.empty()) continue;
    absl::StatusOr<Arrival> arrival = ParseLine(line);
    if (!arrival.ok()) return Annotate(arrival.status(), absl::StrCat("line ", number));
    arrivals.push_back(*arrival);
  }
  if (arrivals.empty()) return absl::InvalidArgumentError("no request in it");
  std::stable_sort(arrivals.begin(), arrivals.end(),
                   [](const Arrival& a, const Arrival& b) { return a.seconds < b.seconds; });
  const double begin = arrivals.front().seconds;
  for (Arrival& arrival : arrivals) arrival.seconds = (arrival.seconds - begin) / limits.speed;
  const auto late = std::find_if(arrivals.begin(), arrivals.end(),
                                 [&](const Arrival& arrival) { return arrival.seconds >= limits.seconds; });
  arrivals.resize(std::min<int64_t>(late - arrivals.begin(), limits.most));
  return arrivals;
}

}  // namespace salamander::cli
