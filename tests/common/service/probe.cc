#include "tests/common/service/probe.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/client_callback.h>

#include <chrono>
#include <future>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/service/channel.h"
#include "common/service/grpc_status.h"

namespace salamander::testing {
namespace {

// Debian ships no generated code for the two protocols; their messages are a field or two, written here by hand.
grpc::ByteBuffer StringField(int field, const std::string& value) {
  std::string bytes = {static_cast<char>(field << 3 | 2), static_cast<char>(value.size())};
  const grpc::Slice slice(bytes + value);
  return grpc::ByteBuffer(&slice, 1);
}

std::string ToString(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  if (!buffer.Dump(&slices).ok()) return "";
  std::string result;
  for (const grpc::Slice& slice : slices) result.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return result;
}

void SetDeadline(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
}

class OneExchange final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  explicit OneExchange(grpc::ByteBuffer request) : request_(std::move(request)) {}
  void Start() {
    StartRead(&response_);
    StartWriteLast(&request_, {});
    StartCall();
  }
  void OnDone(const grpc::Status& status) override { done_.set_value(status); }
  absl::StatusOr<std::string> Wait() {
    const grpc::Status status = done_.get_future().get();
    if (!status.ok()) return service::FromGrpc(status);
    return ToString(response_);
  }

 private:
  grpc::ByteBuffer request_, response_;
  std::promise<grpc::Status> done_;
};

}  // namespace

absl::StatusOr<bool> IsServing(const std::string& address, const std::string& service,
                               const service::ChannelSecurity& security) {
  grpc::GenericStub stub(service::MakeChannel(address, security));
  grpc::ClientContext context;
  SetDeadline(context);
  const grpc::ByteBuffer request = StringField(1, service);
  grpc::ByteBuffer response;
  std::promise<grpc::Status> done;
  stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", {}, &request, &response,
                 [&done](grpc::Status status) { done.set_value(std::move(status)); });
  if (const grpc::Status status = done.get_future().get(); !status.ok()) return service::FromGrpc(status);
  const std::string bytes = ToString(response);
  if (bytes == "\x08\x01") return true;   // SERVING
  if (bytes == "\x08\x02") return false;  // NOT_SERVING
  return absl::DataLossError(absl::StrCat("unknown health answer of ", bytes.size(), " bytes"));
}

absl::StatusOr<std::string> ListServices(const std::string& address, const service::ChannelSecurity& security) {
  grpc::GenericStub stub(service::MakeChannel(address, security));
  grpc::ClientContext context;
  SetDeadline(context);
  OneExchange exchange(StringField(7, ""));
  stub.PrepareBidiStreamingCall(&context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", {},
                                &exchange);
  exchange.Start();
  return exchange.Wait();
}

}  // namespace salamander::testing
