#include "clients/cli/load/load_report.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/load/quantiles.h"

namespace salamander::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kDropped[] = "DROPPED_BY_CLIENT";

std::string Outcome(const RequestRecord& request) {
  return request.dropped ? kDropped : absl::StatusCodeToString(request.code);
}

Json ToJson(const Quantiles& q) {
  return {{"count", q.count}, {"mean", q.mean}, {"p50", q.p50}, {"p90", q.p90}, {"p99", q.p99}, {"max", q.max}};
}

// Of what `value` says of the requests that `which` holds for.
template <typename Which, typename Value>
Json Of(const LoadResult& result, Which which, Value value) {
  std::vector<double> values;
  for (const RequestRecord& request : result.requests) {
    if (which(request)) values.push_back(value(request));
  }
  return ToJson(QuantilesOf(std::move(values)));
}

bool IsGood(const RequestRecord& request, const ServiceLevels& levels) {
  return request.completed() && request.ttft() <= levels.ttft && request.inter_token() <= levels.itl;
}

Json Sample(const RequestRecord& request) {
  Json sample = {{"at", request.due},
                 {"outcome", Outcome(request)},
                 {"input", request.arrival.input_tokens},
                 {"output", request.tokens},
                 {"e2e_s", request.end - request.due}};
  if (request.tokens > 0) sample["ttft_s"] = request.ttft();
  if (request.tokens > 1) sample["itl_s"] = request.inter_token();
  return sample;
}

}  // namespace

Json LoadReport(const LoadResult& result, const ServiceLevels& levels, Json workload, Json router) {
  const auto any = [](const RequestRecord& request) { return !request.dropped; };
  const auto completed = [](const RequestRecord& request) { return request.completed(); };
  const auto refused = [](const RequestRecord& request) {
    return !request.dropped && request.code == absl::StatusCode::kResourceExhausted;
  };
  const auto e2e = [](const RequestRecord& request) { return request.end - request.due; };
  int64_t good = 0, sent = 0, done = 0, input = 0, output = 0;
  double last_due = 0;
  Json errors = Json::object(), messages = Json::object(), samples = Json::array();
  for (const RequestRecord& request : result.requests) {
    good += IsGood(request, levels);
    sent += any(request);
    done += completed(request);
    output += request.tokens;
    if (completed(request)) input += request.arrival.input_tokens;
    last_due = std::max(last_due, request.due);
    if (!completed(request)) errors[Outcome(request)] = errors.value(Outcome(request), 0) + 1;
    samples.push_back(Sample(request));
  }
  for (const auto& [code, message] : result.a_message) messages[absl::StatusCodeToString(code)] = message;
  const auto a_second = [&result](int64_t count) { return result.seconds > 0 ? count / result.seconds : 0; };
  if (router.contains("cpu_s") && sent > 0) router["cpu_us_per_request"] = router["cpu_s"].get<double>() / sent * 1e6;
  return {
      {"workload", std::move(workload)},
      {"seconds", result.seconds},
      {"requests", {{"arrived", result.requests.size()}, {"sent", sent}, {"completed", done}, {"within_slo", good}}},
      {"errors", errors},
      {"first_messages", messages},
      {"offered_per_s", last_due > 0 ? result.requests.size() / last_due : 0},
      {"completed_per_s", a_second(done)},
      {"slo", {{"ttft_s", levels.ttft}, {"itl_s", levels.itl}}},
      {"goodput_per_s", a_second(good)},
      {"prompt_tokens_per_s", a_second(input)},
      {"output_tokens_per_s", a_second(output)},
      {"ttft_s", Of(result, completed, [](const RequestRecord& request) { return request.ttft(); })},
      {"itl_s", ToJson(QuantilesOf(result.inter_token_gaps))},
      {"e2e_s", Of(result, completed, e2e)},
      {"refused_s", Of(result, refused, [](const RequestRecord& request) { return request.end - request.sent; })},
      {"send_lag_s", Of(result, any, [](const RequestRecord& request) { return request.sent - request.due; })},
      {"router", std::move(router)},
      {"samples", std::move(samples)}};
}

std::string LoadSummary(const Json& report) {
  const Json& requests = report["requests"];
  std::string text = absl::StrFormat(
      "%d requests arrived (%.2f/s), %d sent, %d completed (%.2f/s), %d within %g s to the first token and %g s a "
      "token: goodput %.2f/s\n",
      requests["arrived"].get<int64_t>(), report["offered_per_s"].get<double>(), requests["sent"].get<int64_t>(),
      requests["completed"].get<int64_t>(), report["completed_per_s"].get<double>(),
      requests["within_slo"].get<int64_t>(), report["slo"]["ttft_s"].get<double>(),
      report["slo"]["itl_s"].get<double>(), report["goodput_per_s"].get<double>());
  absl::StrAppendFormat(&text, "tokens/s: %.0f of prompts, %.0f generated\n",
                        report["prompt_tokens_per_s"].get<double>(), report["output_tokens_per_s"].get<double>());
  absl::StrAppendFormat(&text, "%-32s%10s%10s%10s%10s%10s\n", "seconds", "mean", "p50", "p90", "p99", "max");
  for (const auto& [key, title] : {std::pair("ttft_s", "time to first token"), std::pair("itl_s", "between tokens"),
                                   std::pair("e2e_s", "whole request"), std::pair("refused_s", "until refused"),
                                   std::pair("send_lag_s", "sent later than due")}) {
    const Json& q = report[key];
    if (q["count"] == 0) continue;
    absl::StrAppendFormat(&text, "%-32s%10.4f%10.4f%10.4f%10.4f%10.4f\n", title, q["mean"].get<double>(),
                          q["p50"].get<double>(), q["p90"].get<double>(), q["p99"].get<double>(),
                          q["max"].get<double>());
  }
  for (const auto& [outcome, count] : report["errors"].items()) {
    absl::StrAppend(&text, outcome, ": ", count.get<int64_t>());
    const Json& messages = report["first_messages"];
    absl::StrAppend(&text, messages.contains(outcome) ? ", such as: " + messages[outcome].get<std::string>() : "",
                    "\n");
  }
  const Json& router = report["router"];
  if (router.contains("cpu_us_per_request")) {
    absl::StrAppendFormat(&text, "router: %.0f us of processor time a request\n",
                          router["cpu_us_per_request"].get<double>());
  }
  return text;
}

}  // namespace salamander::cli
