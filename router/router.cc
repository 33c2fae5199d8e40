#include "router/router.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/model/config.h"
#include "common/service/version.h"
#include "router/cluster_service.h"
#include "router/inference_service.h"
#include "router/start.h"
#include "router/ticker.h"

namespace salamander::router {
namespace {

// A silent worker is noticed at most this part of a beat too late.
constexpr double kExpireChecksPerBeat = 4;
// The name in grpc.health.v1 that says whether a request would find workers; "" says that the router itself serves.
constexpr char kHealthWithWorkers[] = "salamander.workers";

absl::Status CheckOptions(const RouterOptions& options) {
  const auto bad = [](const std::string& what, auto value) {
    return absl::InvalidArgumentError(absl::StrCat(what, ", got ", value));
  };
  if (options.span_tokens < kSpanAlignTokens || options.span_tokens % kSpanAlignTokens != 0) {
    return bad("span_tokens must be a multiple of 128 and at least 128", options.span_tokens);
  }
  if (options.min_span_tokens < 1) return bad("min_span_tokens must be at least 1", options.min_span_tokens);
  if (options.queue_limit < 0) return bad("queue_limit must be at least 0", options.queue_limit);
  if (options.max_running < 1) return bad("max_running must be at least 1", options.max_running);
  if (options.max_logprobs < 0) return bad("max_logprobs must be at least 0", options.max_logprobs);
  if (options.default_max_tokens < 1) return bad("default_max_tokens must be at least 1", options.default_max_tokens);
  if (options.max_total_tokens < 0) return bad("max_total_tokens must be at least 0", options.max_total_tokens);
  if (options.codec != v1::CODEC_RAW && options.codec != v1::CODEC_LOSSLESS) {
    return bad("codec must be raw or lossless", v1::Codec_Name(options.codec));
  }
  if (!(options.heartbeat_seconds > 0)) return bad("heartbeat_seconds must be above 0", options.heartbeat_seconds);
  if (!(options.lease_seconds > 0)) return bad("lease_seconds must be above 0", options.lease_seconds);
  if (!(options.max_queue_seconds >= 0)) return bad("max_queue_seconds must be at least 0", options.max_queue_seconds);
  if (!(options.max_request_seconds >= 0)) {
    return bad("max_request_seconds must be at least 0", options.max_request_seconds);
  }
  if (options.threads < 1) return bad("threads must be at least 1", options.threads);
  return absl::OkStatus();
}

class RouterImpl final : public Router {
 public:
  // `keys` may be null. It counts in `metrics`.
  RouterImpl(const RouterOptions& options, ModelInfo model, std::unique_ptr<service::Metrics> metrics,
             std::unique_ptr<ApiKeys> keys)
      : options_(options),
        model_(std::move(model)),
        metrics_(std::move(metrics)),
        router_metrics_(metrics_.get()),
        keys_(std::move(keys)),
        registry_({.model_fingerprint = model_.fingerprint,
                   .heartbeat_seconds = options.heartbeat_seconds,
                   .router_version = service::BuildVersion()},
                  &RealClock(),
                  [security = service::MemberSecurity(options.server.security)](const std::string& address) {
                    return std::make_shared<WorkerClient>(address, security);
                  }),
        placer_(&registry_, {.span_tokens = options.span_tokens,
                             .min_span_tokens = std::min(options.min_span_tokens, options.span_tokens),
                             .codec = options.codec}),
        admission_({.queue_limit = options.queue_limit, .max_running = options.max_running},
                   [this](const Demand& demand) { return Place(demand); }),
        backlog_(&RealClock()),
        supervision_("supervision", options.threads),
        text_("tokenizing", options.threads),
        timer_("request_limits"),
        context_{.clock = &RealClock(),
                 .model = &model_,
                 .limits = Limits(),
                 .lease_seconds = options.lease_seconds,
                 .supervision = &supervision_,
                 .text = &text_,
                 .timer = &timer_,
                 .max_request_seconds = options.max_request_seconds,
                 .max_queue_seconds = options.max_queue_seconds,
                 .placer = &placer_,
                 .admission = &admission_,
                 .backlog = &backlog_,
                 .metrics = &router_metrics_,
                 .active = &active_,
                 .keys = keys_.get()},
        inference_(&context_, &registry_),
        gate_(options.server.security.cluster_token, metrics_.get()),
        cluster_(
            &registry_, &gate_,
            [this](const grpc::CallbackServerContext& call) { return inference_.Authenticate(call).status(); },
            [this](v1::GetStatusResponse* response) { Describe(response); }) {
    router_metrics_.Watch(&registry_, &admission_);
    registry_.set_on_change([this] { admission_.Wake(); });
    registry_.set_on_gone([this](InstanceId instance, const std::string& reason) {
      active_.ForEach([&](Request& request) { request.WorkerGone(instance, reason); });
    });
  }

  ~RouterImpl() override {
    if (server_ == nullptr) return;
    Drain(0);
    expire_.reset();
    reload_.reset();
    server_.reset();
    active_.WaitForTokens();
  }

  absl::Status Serve() {
    ASSIGN_OR_RETURN(server_, service::Server::Start(options_.server, metrics_.get(), {&inference_, &cluster_}));
    if (keys_ != nullptr) {
      reload_.emplace("api_keys", options_.server.security.tls.reload_seconds, [this] { keys_->Reload(); });
    }
    server_->SetServing(true);
    server_->SetServing(kHealthWithWorkers, false);
    expire_.emplace("expire", options_.heartbeat_seconds / kExpireChecksPerBeat, [this] {
      registry_.Expire();
      server_->SetServing(kHealthWithWorkers, Ready());
    });
    return absl::OkStatus();
  }

  std::string address() const override { return server_->address(); }
  std::string metrics_address() const override { return server_->metrics_address(); }
  std::string health_address() const override { return server_->health_address(); }

  void Drain(double grace_seconds) override {
    if (std::exchange(drained_, true)) return;
    inference_.StopAccepting();
    server_->SetServing(false);
    if (!active_.WaitForRequests(grace_seconds)) {
      active_.ForEach([](Request& request) { request.Abort(absl::UnavailableError("the router is shutting down")); });
    }
    // Workers' streams have no end of their own; only now, since a worker that loses its router ends its requests.
    registry_.CloseLinks(absl::UnavailableError("the router is shutting down"));
    server_->Shutdown(kClosingSeconds);
  }

 private:
  // For the last messages of calls that were just ended.
  static constexpr double kClosingSeconds = 1;

  // A request sent now would find workers.
  bool Ready() const {
    return inference_.accepting() && registry_.HasReady(v1::WORKER_ROLE_PREFILL) &&
           registry_.HasReady(v1::WORKER_ROLE_DECODE);
  }

  RequestLimits Limits() const {
    return {.vocab_size = model_.vocab_size,
            .max_total_tokens = options_.max_total_tokens > 0
                                    ? options_.max_total_tokens
                                    : std::max(model_.max_position_embeddings, model::kMaxTotalTokens),
            .default_max_tokens = options_.default_max_tokens,
            .max_logprobs = options_.max_logprobs};
  }

  absl::StatusOr<Placement> Place(const Demand& demand) {
    const double begin = RealClock().Now();
    auto placement = placer_.Place(demand);
    router_metrics_.decision_seconds.Observe(RealClock().Now() - begin);
    return placement;
  }

  void Describe(v1::GetStatusResponse* response) const {
    response->set_router_version(service::BuildVersion());
    *response->mutable_model() = inference_.Model();
    response->set_queued_requests(admission_.queued());
    response->set_running_requests(admission_.running());
    response->set_queue_limit(options_.queue_limit);
    response->set_ready(Ready());
    response->set_router_cpu_seconds(service::ProcessCpuSeconds());
  }

  const RouterOptions options_;
  const ModelInfo model_;
  const std::unique_ptr<service::Metrics> metrics_;
  RouterMetrics router_metrics_;
  const std::unique_ptr<ApiKeys> keys_;
  ActiveRequests active_;
  Registry registry_;
  Placer placer_;
  Admission admission_;
  Backlog backlog_;
  // Below what their closures use.
  ThreadPool supervision_;
  ThreadPool text_;
  TimerThread timer_;
  RequestContext context_;
  InferenceService inference_;
  service::ClusterGate gate_;
  ClusterService cluster_;
  std::unique_ptr<service::Server> server_;
  std::optional<Ticker> expire_, reload_;
  bool drained_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Router>> StartRouter(const RouterOptions& options, ModelInfo model) {
  RETURN_IF_ERROR(CheckOptions(options));
  auto metrics = std::make_unique<service::Metrics>("router");
  std::unique_ptr<ApiKeys> keys;
  if (!options.api_keys_file.empty()) {
    ASSIGN_OR_RETURN(keys, ApiKeys::Open(options.api_keys_file, &RealClock(), metrics.get()));
  }
  auto router = std::make_unique<RouterImpl>(options, std::move(model), std::move(metrics), std::move(keys));
  RETURN_IF_ERROR(router->Serve());
  return std::unique_ptr<Router>(std::move(router));
}

absl::StatusOr<std::unique_ptr<Router>> Router::Start(const RouterOptions& options) {
  ASSIGN_OR_RETURN(const model::LoadFormat format, model::ParseLoadFormat(options.load_format));
  ASSIGN_OR_RETURN(ModelInfo model, LoadModelInfo(options.model, format));
  Log(LogLevel::kInfo,
      std::string(absl::StrCat("model ", model.name, ", vocabulary ", model.vocab_size, ", fingerprint ",
                               model.fingerprint.empty() ? "the workers'" : model.fingerprint,
                               model.tokenizer == nullptr ? ", no tokenizer: prompts must be token ids" : "")));
  return StartRouter(options, std::move(model));
}

}  // namespace salamander::router
