// Prefill and decode rates of a checkpoint in one process, beside the floor of their matrix products:
//
//   engine_bench --model=tools/demo/probe-7m [--threads=1,2] [--tokens=8192,32768,131072] [--batch=1,16] [--json]
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "common/model/checkpoint.h"
#include "tests/common/engine/bench_measure.h"

ABSL_FLAG(std::string, model, "", "checkpoint folder");
ABSL_FLAG(std::vector<std::string>, threads, {"2"}, "thread counts");
ABSL_FLAG(std::vector<std::string>, tokens, (std::vector<std::string>{"8192", "32768", "131072"}), "prompt lengths");
ABSL_FLAG(std::vector<std::string>, batch, (std::vector<std::string>{"1", "16"}), "decode batches");
ABSL_FLAG(int64_t, context, 8192, "tokens that each decoded sequence holds");
ABSL_FLAG(int64_t, steps, 64, "decode steps");
ABSL_FLAG(int64_t, span_tokens, 8192, "longest span");
ABSL_FLAG(bool, json, false, "one JSON object per line instead of text");

namespace salamander::engine {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;

std::vector<int64_t> Numbers(const std::vector<std::string>& texts) {
  std::vector<int64_t> numbers;
  for (const std::string& text : texts) numbers.push_back(std::strtoll(text.c_str(), nullptr, 10));
  return numbers;
}

// `what`: "prefill 8192", "decode batch 16".
void Print(const std::string& what, int64_t threads, const Measurement& m) {
  std::vector<std::string> shares;
  double counted = 0;
  for (const auto& [name, seconds] : m.op_seconds) {
    counted += seconds;
    if (seconds <= 0) continue;
    shares.push_back(absl::GetFlag(FLAGS_json) ? absl::StrFormat("\"%s\":%.6f", name, seconds)
                                               : absl::StrFormat("%s %.1f%%", name, 100 * seconds / m.seconds));
  }
  if (absl::GetFlag(FLAGS_json)) {
    std::printf("%s\n",
                absl::StrFormat("{\"what\":\"%s\",\"threads\":%d,\"tokens\":%d,\"seconds\":%.6f,\"tokens_per_s\":%.2f,"
                                "\"matmul_floor_seconds\":%.6f,\"gflop\":%.3f,\"op_seconds\":{%s}}",
                                what, threads, m.tokens, m.seconds, m.tokens_per_second(), m.matmul_floor_seconds,
                                m.gflop, absl::StrJoin(shares, ","))
                    .c_str());
    return;
  }
  if (counted > 0) shares.push_back(absl::StrFormat("outside operations %.2f%%", 100 * (1 - counted / m.seconds)));
  std::printf("%s\n", absl::StrFormat("%-16s %d threads  %9.0f tokens/s  floor of matrix products %9.0f (%.2fx)  %s",
                                      what, threads, m.tokens_per_second(), m.tokens / m.matmul_floor_seconds,
                                      m.seconds / m.matmul_floor_seconds, absl::StrJoin(shares, ", "))
                          .c_str());
}

absl::Status Bench(const model::Checkpoint& checkpoint, int64_t threads) {
  MemoryLedger ledger(256 * kGiB);
  ASSIGN_OR_RETURN(const auto ops, kernels::CreateCpuOps(static_cast<int>(threads)));
  ASSIGN_OR_RETURN(const auto model, Model::Load(checkpoint, ops.get(), &ledger));
  const int64_t span_tokens = absl::GetFlag(FLAGS_span_tokens);
  ASSIGN_OR_RETURN(const double rate, MeasureMatMulRate(*ops, ledger, 2048));
  const char* form = absl::GetFlag(FLAGS_json) ? "{\"what\":\"matmul 2048\",\"backend\":\"%s\",\"gflop_per_s\":%.1f}\n"
                                               : "%s: matrix product of 2048 x 2048 at %.1f GFLOP/s\n";
  std::printf(form, ops->name().c_str(), rate);
  for (const int64_t tokens : Numbers(absl::GetFlag(FLAGS_tokens))) {
    ASSIGN_OR_RETURN(const Measurement m, MeasurePrefill(*model, ledger, tokens, span_tokens));
    Print(absl::StrCat("prefill ", tokens), threads, m);
  }
  for (const int64_t batch : Numbers(absl::GetFlag(FLAGS_batch))) {
    ASSIGN_OR_RETURN(const Measurement m, MeasureDecode(*model, ledger, batch, absl::GetFlag(FLAGS_context),
                                                        absl::GetFlag(FLAGS_steps), span_tokens));
    Print(absl::StrCat("decode batch ", batch), threads, m);
  }
  return absl::OkStatus();
}

absl::Status Main() {
  ASSIGN_OR_RETURN(const auto checkpoint, model::Checkpoint::Open(absl::GetFlag(FLAGS_model)));
  for (const int64_t threads : Numbers(absl::GetFlag(FLAGS_threads))) RETURN_IF_ERROR(Bench(*checkpoint, threads));
  return absl::OkStatus();
}

}  // namespace
}  // namespace salamander::engine

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("Measures prefill and decode of a checkpoint. Example: engine_bench --model=DIR");
  absl::ParseCommandLine(argc, argv);
  const absl::Status status = salamander::engine::Main();
  if (status.ok()) return 0;
  std::fprintf(stderr, "engine_bench: %s\n", status.ToString().c_str());
  return 1;
}
