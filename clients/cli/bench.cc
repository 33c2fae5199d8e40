// `salamander bench`: how fast a model is on a device, beside what the device could do at best.
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "clients/cli/commands.h"
#include "clients/cli/errors.h"
#include "clients/cli/loaded_model.h"
#include "common/base/status_macros.h"
#include "common/engine/benchmark.h"

namespace salamander::cli {
namespace {

struct BenchOptions {
  ModelOptions model;
  std::string prompt_tokens = "8192,32768";
  std::string decode_batch = "1,16";
  std::string decode_context = "8192";
  int64_t decode_steps = 64;
  int64_t span_tokens = 8192;
  bool json = false;
};

absl::StatusOr<std::vector<int64_t>> ParseList(const char* flag, const std::string& text) {
  std::vector<int64_t> numbers;
  for (const absl::string_view part : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    if (!absl::SimpleAtoi(part, &numbers.emplace_back()) || numbers.back() < 1) {
      return absl::InvalidArgumentError(absl::StrCat("--", flag, " must be numbers ≥ 1 with commas, got '", text, "'"));
    }
  }
  return numbers;
}

class Report {
 public:
  explicit Report(bool json) : json_(json) {}

  void Rates(const std::string& backend, const engine::DeviceRates& rates) const {
    const char* form = json_ ? "{\"what\":\"rates\",\"backend\":\"%s\",\"flops\":%.4g,\"bytes_per_s\":%.4g}\n"
                             : "%s: matrix product %.4g FLOP/s, copy %.4g bytes/s read and written\n";
    Print(absl::StrFormat(*absl::ParsedFormat<'s', 'g', 'g'>::New(form), backend, rates.flops, rates.bytes_per_second));
  }

  void Row(const std::string& what, const engine::Measurement& m) const {
    std::vector<std::string> shares;
    double counted = 0;
    for (const auto& [name, seconds] : m.op_seconds) {
      counted += seconds;
      if (seconds <= 0) continue;
      shares.push_back(json_ ? absl::StrFormat("\"%s\":%.6f", name, seconds)
                             : absl::StrFormat("%s %.1f%%", name, 100 * seconds / m.seconds));
    }
    if (json_) {
      Print(
          absl::StrFormat("{\"what\":\"%s\",\"tokens\":%d,\"seconds\":%.6f,\"tokens_per_s\":%.2f,"
                          "\"matmul_seconds\":%.6f,\"floor_seconds\":%.6f,\"op_seconds\":{%s}}\n",
                          what, m.tokens, m.seconds, m.tokens_per_second(), m.matmul_seconds, m.floor_seconds,
                          absl::StrJoin(shares, ",")));
      return;
    }
    if (counted > 0) shares.push_back(absl::StrFormat("outside operations %.2f%%", 100 * (1 - counted / m.seconds)));
    Print(absl::StrFormat("%-30s %9.4f s %9.0f tokens/s  floor %9.4f s (%.2fx)  products alone %9.4f s (%.2fx)  %s\n",
                          what, m.seconds, m.tokens_per_second(), m.floor_seconds, m.seconds / m.floor_seconds,
                          m.matmul_seconds, m.seconds / m.matmul_seconds, absl::StrJoin(shares, ", ")));
  }

 private:
  static void Print(const std::string& line) {
    std::fputs(line.c_str(), stdout);
    std::fflush(stdout);
  }
  bool json_;
};

absl::Status Bench(const BenchOptions& options) {
  ASSIGN_OR_RETURN(const auto prompts, ParseList("prompt_tokens", options.prompt_tokens));
  ASSIGN_OR_RETURN(const auto batches, ParseList("decode_batch", options.decode_batch));
  ASSIGN_OR_RETURN(const auto contexts, ParseList("decode_context", options.decode_context));
  ASSIGN_OR_RETURN(const auto loaded, LoadedModel::Load(options.model));
  const engine::Model& model = *loaded->model;
  ASSIGN_OR_RETURN(const engine::DeviceRates rates, engine::MeasureRates(*loaded->ops, *loaded->ledger));
  const Report report(options.json);
  report.Rates(loaded->ops->name(), rates);
  for (const int64_t tokens : prompts) {
    ASSIGN_OR_RETURN(const auto m, engine::MeasurePrefill(model, *loaded->ledger, rates, tokens, options.span_tokens));
    report.Row(absl::StrCat("prefill ", tokens), m);
  }
  for (const int64_t context : batches.empty() ? std::vector<int64_t>() : contexts) {
    ASSIGN_OR_RETURN(const auto decode, engine::DecodeBenchmark::Create(model, *loaded->ledger, context,
                                                                        options.decode_steps, options.span_tokens));
    for (const int64_t batch : batches) {
      ASSIGN_OR_RETURN(const auto m, decode->Measure(rates, batch, options.decode_steps));
      report.Row(absl::StrCat("decode batch ", batch, " after ", context), m);
    }
  }
  return absl::OkStatus();
}

}  // namespace

int RunBench(const Args& args) {
  if (!args.empty() && args[0] == "serve") return RunBenchServe(Args(args.begin() + 1, args.end()));
  BenchOptions options;
  FlagSet flags(
      "bench",
      "Measures prefill and decode of a model in this process. The floor is the time that the arithmetic and "
      "the bytes would take at the device's best rates, which are measured first. `bench serve` loads a cluster.");
  options.model.AddTo(flags);
  flags.Add("prompt_tokens", &options.prompt_tokens, "prompt lengths (default 8192,32768)");
  flags.Add("decode_batch", &options.decode_batch, "sequences decoded together (default 1,16); empty: no decoding");
  flags.Add("decode_context", &options.decode_context, "tokens before the decoded ones (default 8192)");
  flags.Add("decode_steps", &options.decode_steps, "steps measured (default 64)");
  flags.Add("span_tokens", &options.span_tokens, "prompt tokens computed at once, a multiple of 128 (default 8192)");
  flags.Add("json", &options.json, "one JSON object a line");
  if (std::optional<int> exit = flags.Parse(args)) return *exit;
  if (options.model.model.empty()) return flags.UsageError("--model must be given");
  const absl::Status status = Bench(options);
  return status.ok() ? 0 : ReportError(status);
}

}  // namespace salamander::cli
