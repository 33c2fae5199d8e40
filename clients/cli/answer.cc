#include "clients/cli/answer.h"

#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/json.h"

namespace salamander::cli {
namespace {

using Json = nlohmann::ordered_json;

Json LogprobsToJson(const std::vector<client::TokenLogprob>& logprobs) {
  Json list = Json::array();
  for (const client::TokenLogprob& logprob : logprobs) {
    Json top = Json::array();
    for (const client::TopLogprob& other : logprob.top) {
      top.push_back({{"token", other.token}, {"logprob", other.logprob}});
    }
    list.push_back({{"token", logprob.token}, {"logprob", logprob.logprob}, {"top", top}});
  }
  return list;
}

Json TimingToJson(const client::Timing& timing) {
  return {{"ttft_s", timing.ttft},
          {"router_queue_s", timing.router_queue},
          {"prefill_queue_s", timing.prefill_queue},
          {"prefill_s", timing.prefill},
          {"transfer_exposed_s", timing.transfer_exposed},
          {"decode_queue_s", timing.decode_queue},
          {"first_step_s", timing.first_step},
          {"tokens_per_s", timing.tokens_per_second}};
}

}  // namespace

std::string CompletionToJson(const client::Completion& completion) {
  const client::Finished& finished = completion.finished;
  Json spans = Json::array();
  for (const client::PlannedSpan& span : finished.spans) {
    spans.push_back({{"begin", span.begin}, {"end", span.end}, {"worker", span.worker}});
  }
  Json object = {
      {"tokens", completion.tokens},
      {"text", completion.text},
      {"finish_reason", client::FinishReasonName(finished.reason)},
      {"logprobs", LogprobsToJson(completion.logprobs)},
      {"usage",
       {{"prompt_tokens", finished.usage.prompt_tokens}, {"completion_tokens", finished.usage.completion_tokens}}},
      {"timing", TimingToJson(finished.timing)},
      {"plan", {{"spans", spans}}}};
  return DumpJson(object);
}

std::string Summary(const client::Finished& finished) {
  const client::Timing& timing = finished.timing;
  std::set<std::string> workers;
  for (const client::PlannedSpan& span : finished.spans) workers.insert(span.worker);
  std::string summary = absl::StrFormat(
      "time to first token %.3f s = router queue %.3f + prefill queue %.3f + prefill %.3f + exposed transfer %.3f + "
      "decode queue %.3f + first step %.3f\n",
      timing.ttft, timing.router_queue, timing.prefill_queue, timing.prefill, timing.transfer_exposed,
      timing.decode_queue, timing.first_step);
  absl::StrAppend(&summary, WithThousands(finished.usage.prompt_tokens), " prompt tokens in ", finished.spans.size(),
                  finished.spans.size() == 1 ? " span" : " spans", " on ", workers.size(),
                  workers.size() == 1 ? " worker" : " workers");
  if (timing.prefill > 0) {
    const double rate = static_cast<double>(finished.usage.prompt_tokens) / timing.prefill;
    absl::StrAppend(&summary, ", ", WithThousands(static_cast<int64_t>(rate)), " tokens/s");
  }
  absl::StrAppend(&summary, "; ", WithThousands(finished.usage.completion_tokens), " completion tokens");
  if (timing.tokens_per_second > 0) absl::StrAppendFormat(&summary, ", %.1f tokens/s", timing.tokens_per_second);
  absl::StrAppend(&summary, "; finish reason ", client::FinishReasonName(finished.reason), "\n");
  return summary;
}

void AnswerPrinter::Show(const client::Event& event) {
  if (const auto* accepted = std::get_if<client::Accepted>(&event)) completion_.request_id = accepted->request_id;
  if (const auto* progress = std::get_if<client::Progress>(&event)) bar_.Show(*progress);
  if (const auto* chunk = std::get_if<client::TokenChunk>(&event)) ShowChunk(*chunk);
  if (const auto* finished = std::get_if<client::Finished>(&event)) ShowEnd(*finished);
}

void AnswerPrinter::ShowChunk(const client::TokenChunk& chunk) {
  bar_.Clear();
  completion_.tokens.insert(completion_.tokens.end(), chunk.ids.begin(), chunk.ids.end());
  completion_.text += chunk.text;
  completion_.logprobs.insert(completion_.logprobs.end(), chunk.logprobs.begin(), chunk.logprobs.end());
  if (json_) return;
  std::fwrite(chunk.text.data(), 1, chunk.text.size(), stdout);
  std::fflush(stdout);
}

void AnswerPrinter::ShowEnd(const client::Finished& finished) {
  bar_.Clear();
  completion_.finished = finished;
  if (json_) {
    std::printf("%s\n", CompletionToJson(completion_).c_str());
    std::fflush(stdout);
    return;
  }
  EndLine();
  std::fputs(Summary(finished).c_str(), stderr);
}

void AnswerPrinter::Abandon() {
  bar_.Clear();
  if (!json_) EndLine();
}

void AnswerPrinter::EndLine() {
  if (completion_.text.empty() || completion_.text.back() == '\n') return;
  std::fputc('\n', stdout);
  std::fflush(stdout);
}

}  // namespace salamander::cli
