// What a client sends and gets, as plain structs: inference.proto and the status part of cluster.proto without their
// generated code. A field that is std::nullopt is not sent, and the router's default applies; limits are checked by
// the router, which answers INVALID_ARGUMENT naming field, value and limit. docs/api.md describes every field.
#ifndef SALAMANDER_CLIENTS_CPP_TYPES_H_
#define SALAMANDER_CLIENTS_CPP_TYPES_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace salamander::client {

struct ChatMessage {
  std::string role;     // "system", "user", "assistant" or "tool"
  std::string content;  // UTF-8
};
using Text = std::string;  // UTF-8; gets the begin-of-text token in front
using TokenIds = std::vector<int32_t>;
using Chat = std::vector<ChatMessage>;
using Prompt = std::variant<Text, TokenIds, Chat>;

// A text (at most 256 bytes of UTF-8, not part of the returned text) or a token id.
using StopCondition = std::variant<std::string, int32_t>;

struct SamplingOptions {
  std::optional<float> temperature;         // >= 0; 0 is greedy
  std::optional<float> top_p;               // (0, 1]
  std::optional<int32_t> top_k;             // >= 0; 0 keeps all
  std::optional<float> min_p;               // [0, 1]
  std::optional<float> repetition_penalty;  // > 0
  std::optional<float> presence_penalty;    // [-2, 2]
  std::optional<float> frequency_penalty;   // [-2, 2]
  std::map<int32_t, float> logit_bias;      // token id -> [-100, 100]
  std::optional<uint64_t> seed;             // not sent: drawn by the router, told in Finished
};

struct GenerateRequest {
  Prompt prompt;
  std::optional<int64_t> max_tokens;  // > 0
  SamplingOptions sampling;
  std::vector<StopCondition> stop;
  bool ignore_eos = false;
  std::optional<int32_t> logprobs;  // likeliest tokens told per output token; 0: only the chosen one
  int32_t priority = 0;             // [-100, 100]; higher goes first
};

// ---- events of Generate, in this order: Accepted, Progress..., TokenChunk..., Finished

struct Accepted {
  std::string request_id;
  int64_t prompt_tokens = 0;
};

struct Progress {
  int64_t prompt_tokens = 0;
  int64_t prefilled_tokens = 0;
  double tokens_per_second = 0;  // 0: not known yet
  double seconds_left = 0;
};

struct TopLogprob {
  int32_t token = 0;
  float logprob = 0;
};
struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;
  std::vector<TopLogprob> top;  // likeliest first
};

struct TokenChunk {
  std::vector<int32_t> ids;
  std::string text;                    // whole UTF-8 characters; may be empty
  std::vector<TokenLogprob> logprobs;  // one per id when asked for
};

enum class FinishReason { kUnknown, kStop, kLength };
// "stop", "length" or "unknown".
const char* FinishReasonName(FinishReason reason);

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
};

// Seconds on the router's clock; the six parts add up to ttft.
struct Timing {
  double ttft = 0;
  double router_queue = 0;
  double prefill_queue = 0;
  double prefill = 0;
  double transfer_exposed = 0;
  double decode_queue = 0;
  double first_step = 0;
  double tokens_per_second = 0;  // of the tokens after the first
};

// Tokens [begin, end) of the prompt were computed by `worker`.
struct PlannedSpan {
  int64_t begin = 0;
  int64_t end = 0;
  std::string worker;
};

struct Finished {
  FinishReason reason = FinishReason::kUnknown;
  Usage usage;
  Timing timing;
  std::vector<PlannedSpan> spans;
  std::string decode_worker;
  uint64_t seed = 0;
};

using Event = std::variant<Accepted, Progress, TokenChunk, Finished>;

// A whole answer.
struct Completion {
  std::string request_id;
  std::vector<int32_t> tokens;
  std::string text;
  std::vector<TokenLogprob> logprobs;  // one per token when asked for
  Finished finished;
};

// ---- the model and the cluster

struct ModelInfo {
  std::string name;
  std::string fingerprint;
  int64_t vocab_size = 0;
  int64_t max_total_tokens = 0;  // of prompt and max_tokens together
  std::vector<int32_t> eos_token_ids;
  int32_t max_logprobs = 0;
  int64_t default_max_tokens = 0;
};

struct LinkStatus {
  std::string peer;
  bool connected = false;
  double bytes_per_second = 0;  // measured when the link was warmed
  std::string transport;
  std::string error;  // why it is not connected
};

enum class WorkerRole { kUnknown, kPrefill, kDecode };
// "prefill", "decode" or "unknown".
const char* WorkerRoleName(WorkerRole role);

struct WorkerStatus {
  WorkerRole role = WorkerRole::kUnknown;
  std::string name;
  uint64_t instance_id = 0;  // random per process start
  std::string address;
  std::string version;
  std::string transport;
  bool ready = false;
  int64_t running_requests = 0;  // of this router
  int64_t active_requests = 0;   // of all routers
  int64_t queued_tokens = 0;     // prefill: of spans not finished
  double tokens_per_second = 0;  // recent; 0: unknown
  int64_t memory_capacity_bytes = 0;
  int64_t memory_free_bytes = 0;
  std::map<std::string, int64_t> memory_by_owner;
  std::vector<LinkStatus> links;
  double seconds_since_heartbeat = 0;
};

struct ClusterStatus {
  std::string router_version;
  ModelInfo model;
  bool ready = false;  // a request sent now would find a prefill and a decode worker
  int64_t queued_requests = 0;
  int64_t running_requests = 0;
  int64_t queue_limit = 0;
  double router_cpu_seconds = 0;  // of processor time, since it started
  std::vector<WorkerStatus> workers;
};

}  // namespace salamander::client

#endif  // SALAMANDER_CLIENTS_CPP_TYPES_H_
