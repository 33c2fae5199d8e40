// The router process as an object: validates, tokenizes, admits, plans, supervises and relays. Sees no model weights
// and no key, value or state.
#ifndef SALAMANDER_ROUTER_ROUTER_H_
#define SALAMANDER_ROUTER_ROUTER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/service/server.h"
#include "salamander/v1/stream.pb.h"

namespace salamander::router {

struct RouterOptions {
  service::ServerOptions server;
  std::string load_format = "safetensors";  // of the workers
  // The API keys that clients need one of (api_key_file.h); empty: none are asked for.
  std::string api_keys_file;
  // Folder with config.json and, for text prompts, tokenizer.model.
  std::string model;
  int64_t span_tokens = 8192;  // longest span; a multiple of 128
  // Shorter prompts than (workers · span_tokens) are cut into equal spans, one a worker, but not below this.
  int64_t min_span_tokens = 1024;
  int64_t queue_limit = 256;  // requests waiting for admission
  int64_t max_running = 256;  // requests admitted at once
  // Longest wait for one's turn: as estimated at arrival, and as it turns out in the queue. 0: no limit.
  double max_queue_seconds = 0;
  int max_logprobs = 20;
  int64_t default_max_tokens = 256;
  int64_t max_total_tokens = 0;  // 0: the larger of the model's max_position_embeddings and 4M
  v1::Codec codec = v1::CODEC_LOSSLESS;
  double heartbeat_seconds = 1;  // two missed: gone
  double lease_seconds = 5;
  double max_request_seconds = 0;  // a request's whole time; 0: as its deadline says
  int threads = 2;                 // for tokenizing and supervision
};

class Router {
 public:
  // Serving when it returns; ready once workers registered (GetStatus.ready).
  static absl::StatusOr<std::unique_ptr<Router>> Start(const RouterOptions& options);
  virtual ~Router() = default;
  virtual std::string address() const = 0;
  virtual std::string metrics_address() const = 0;
  virtual std::string health_address() const = 0;  // empty: none
  // Readiness off, no new requests; returns when running ones ended or the grace is over (they are then cancelled).
  virtual void Drain(double grace_seconds) = 0;
};

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_ROUTER_H_
