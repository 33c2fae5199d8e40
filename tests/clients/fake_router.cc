#include "tests/clients/fake_router.h"

#include <utility>

namespace salamander::testing {
namespace {

void WriteProgress(FakeRouter::Writer& writer, int64_t done, double rate, double left) {
  v1::GenerateResponse response;
  response.mutable_progress()->set_prompt_tokens(2000);
  response.mutable_progress()->set_prefilled_tokens(done);
  response.mutable_progress()->set_tokens_per_second(rate);
  response.mutable_progress()->set_seconds_left(left);
  writer.Write(response);
}

void WriteToken(FakeRouter::Writer& writer, int32_t id, const std::string& text, float logprob) {
  v1::GenerateResponse response;
  response.mutable_tokens()->add_ids(id);
  response.mutable_tokens()->set_text(text);
  v1::TokenLogprob* told = response.mutable_tokens()->add_logprobs();
  told->set_token(id);
  told->set_logprob(logprob);
  v1::TopLogprob* top = told->add_top();
  top->set_token(id + 100);
  top->set_logprob(logprob / 2);
  writer.Write(response);
}

void WriteFinished(FakeRouter::Writer& writer) {
  v1::GenerateResponse response;
  v1::Finished* finished = response.mutable_finished();
  finished->set_reason(v1::FINISH_REASON_LENGTH);
  finished->mutable_usage()->set_prompt_tokens(2000);
  finished->mutable_usage()->set_completion_tokens(2);
  v1::Timing* timing = finished->mutable_timing();
  timing->set_ttft(21);
  timing->set_router_queue(1);
  timing->set_prefill_queue(2);
  timing->set_prefill(3);
  timing->set_transfer_exposed(4);
  timing->set_decode_queue(5);
  timing->set_first_step(6);
  timing->set_tokens_per_second(7.5);
  for (int i = 0; i < 2; ++i) {
    v1::PlannedSpan* span = finished->add_spans();
    span->set_begin(i * 1024);
    span->set_end(i == 0 ? 1024 : 2000);
    span->set_worker(i == 0 ? "prefill-0" : "prefill-1");
  }
  finished->set_decode_worker("decode-0");
  finished->set_seed(42);
  writer.Write(response);
}

}  // namespace

void WriteSampleEvents(FakeRouter::Writer& writer) {
  v1::GenerateResponse accepted;
  accepted.mutable_accepted()->set_request_id("00000000000000ab");
  accepted.mutable_accepted()->set_prompt_tokens(2000);
  writer.Write(accepted);
  WriteProgress(writer, 1000, 500, 2);
  WriteProgress(writer, 2000, 500, 0);
  WriteToken(writer, 11, "Hello", -0.5F);
  WriteToken(writer, 12, " there", -0.25F);
  WriteFinished(writer);
}

v1::GetStatusResponse SampleStatus() {
  v1::GetStatusResponse status;
  status.set_router_version("1.2.3");
  status.set_ready(true);
  status.set_queue_limit(256);
  status.mutable_model()->set_name("sample");
  status.mutable_model()->set_vocab_size(1000);
  v1::WorkerStatus* prefill = status.add_workers();
  prefill->set_role(v1::WORKER_ROLE_PREFILL);
  prefill->set_name("prefill-0");
  prefill->set_instance_id(0xabc);
  prefill->set_grpc_address("127.0.0.1:4001");
  v1::Heartbeat* beat = prefill->mutable_last();
  beat->set_ready(true);
  beat->set_queued_tokens(12345);
  beat->set_active_requests(3);
  beat->set_memory_capacity_bytes(int64_t{4} << 30);
  beat->set_free_memory_bytes(int64_t{3} << 30);
  v1::MemoryOwner* owner = beat->add_memory();
  owner->set_owner("weights");
  owner->set_bytes(int64_t{1} << 30);
  v1::LinkStatus* link = beat->add_links();
  link->set_peer_name("decode-0");
  link->set_connected(true);
  link->set_bytes_per_second(2.5 * (1 << 30));
  link->set_transport("tcp");
  v1::WorkerStatus* decode = status.add_workers();
  decode->set_role(v1::WORKER_ROLE_DECODE);
  decode->set_name("decode-0");
  return status;
}

FakeRouter::FakeRouter() {
  script_ = [](grpc::ServerContext&, const v1::GenerateRequest&, Writer& writer) {
    WriteSampleEvents(writer);
    return grpc::Status::OK;
  };
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(static_cast<v1::Inference::Service*>(this));
  builder.RegisterService(static_cast<v1::Cluster::Service*>(this));
  server_ = builder.BuildAndStart();
  address_ = "127.0.0.1:" + std::to_string(port);
}

FakeRouter::~FakeRouter() { server_->Shutdown(std::chrono::system_clock::now()); }

void FakeRouter::set_script(Script script) {
  std::lock_guard lock(mutex_);
  script_ = std::move(script);
}

void FakeRouter::set_status(const v1::GetStatusResponse& status) {
  std::lock_guard lock(mutex_);
  status_ = status;
}

void FakeRouter::set_tokenize_status(const grpc::Status& status) {
  std::lock_guard lock(mutex_);
  tokenize_status_ = status;
}

v1::GenerateRequest FakeRouter::last_request() const {
  std::lock_guard lock(mutex_);
  return last_request_;
}

grpc::Status FakeRouter::Generate(grpc::ServerContext* context, const v1::GenerateRequest* request, Writer* writer) {
  Script script;
  {
    std::lock_guard lock(mutex_);
    last_request_ = *request;
    script = script_;
  }
  return script(*context, *request, *writer);
}

grpc::Status FakeRouter::Tokenize(grpc::ServerContext*, const v1::TokenizeRequest* request,
                                  v1::TokenizeResponse* response) {
  // One token per byte, so that a test sees what arrived.
  for (unsigned char byte : request->prompt().text()) response->add_ids(byte);
  std::lock_guard lock(mutex_);
  return tokenize_status_;
}

grpc::Status FakeRouter::GetModel(grpc::ServerContext*, const v1::GetModelRequest*, v1::GetModelResponse* response) {
  response->set_name("sample");
  response->set_max_total_tokens(4096);
  return grpc::Status::OK;
}

grpc::Status FakeRouter::GetStatus(grpc::ServerContext*, const v1::GetStatusRequest*, v1::GetStatusResponse* response) {
  std::lock_guard lock(mutex_);
  *response = status_;
  return grpc::Status::OK;
}

}  // namespace salamander::testing
