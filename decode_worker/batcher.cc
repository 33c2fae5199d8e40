#include "decode_worker/batcher.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/worker/items.h"
#include "decode_worker/start.h"

namespace salamander::decode {

absl::StatusOr<std::unique_ptr<Batcher>> Batcher::Create(worker::Host* host, const DecodeWorkerOptions& options) {
  std::unique_ptr<Batcher> batcher(new Batcher(host, options));
  RETURN_IF_ERROR(batcher->Prepare());
  batcher->loop_.Start("decode-engine", [raw = batcher.get()] { return raw->Turn(); });
  return batcher;
}

Batcher::Batcher(worker::Host* host, const DecodeWorkerOptions& options)
    : host_(host), options_(options), metrics_(host->metrics.get(), &load_) {}

absl::Status Batcher::Prepare() {
  const engine::Model& model = host_->model();
  MemoryLedger& ledger = host_->ledger();
  absl::StatusOr<std::unique_ptr<model::Tokenizer>> tokenizer =
      model::Tokenizer::Load(host_->device->checkpoint().folder());
  if (tokenizer.ok()) {
    tokenizer_ = *std::move(tokenizer);
  } else if (absl::IsNotFound(tokenizer.status())) {
    Log(LogLevel::kInfo, "the model has no tokenizer.model: answers are token ids without text");
  } else {
    return tokenizer.status();
  }
  ASSIGN_OR_RETURN(forward_, engine::DecodeForward::Create(model, ledger, options_.max_batch));
  ASSIGN_OR_RETURN(const int64_t budget, worker::RequestBudget(*host_, /*send_bytes=*/0, /*max_item_tokens=*/0));
  requests_ =
      std::make_unique<worker::RequestTable<Request>>(host_, v1::WORKER_ROLE_DECODE, &loop_, budget, /*hooks=*/this);
  return absl::OkStatus();
}

Batcher::~Batcher() {
  if (requests_ != nullptr) requests_->EndAndWait();
  loop_.Stop();
}

absl::StatusOr<std::unique_ptr<Request>> Batcher::Admit(const v1::ReserveRequest& request) {
  const v1::Plan& plan = request.plan();
  if (plan.decode_worker().instance_id() != host_->instance) {
    return absl::InvalidArgumentError(
        absl::StrCat("plan.decode_worker.instance_id: ", IdToString(plan.decode_worker().instance_id()),
                     ", this worker is ", IdToString(host_->instance)));
  }
  if (request.total_tokens() <= plan.prompt_tokens()) {
    return absl::InvalidArgumentError(absl::StrCat("total_tokens: ", request.total_tokens(),
                                                   " leaves none to decode after a prompt of ", plan.prompt_tokens()));
  }
  ASSIGN_OR_RETURN(std::unique_ptr<worker::Reservation> reserved,
                   requests_->memory().Reserve(request, stream::kDecodeWorker, request.total_tokens()));
  return std::make_unique<Request>(std::move(reserved), worker::SparseLayers(host_->model()));
}

absl::Status Batcher::TakeStart(Request& request, const v1::DecodeStart& start) {
  const model::Config& config = host_->model().config();
  ASSIGN_OR_RETURN(engine::GenerationOptions options, ParseStart(start, {.vocab_size = config.vocab_size,
                                                                         .prompt_tokens = request.plan.prompt_tokens(),
                                                                         .total_tokens = request.total_tokens,
                                                                         .has_tokenizer = tokenizer_ != nullptr}));
  request.generation.emplace(std::move(options), tokenizer_.get(), config.eos_token_ids, request.plan.prompt_tokens(),
                             absl::MakeConstSpan(start.prompt_tokens().data(), start.prompt_tokens_size()));
  return absl::OkStatus();
}

void Batcher::OnClose(Request& request) {
  std::erase(waiting_, &request);
  std::erase(batch_, &request);
  load_.waiting = static_cast<int64_t>(waiting_.size());
  load_.decoding = static_cast<int64_t>(batch_.size());
}

}  // namespace salamander::decode
