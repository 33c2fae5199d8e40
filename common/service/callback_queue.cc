#include "common/service/callback_queue.h"

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>

#include <chrono>
#include <future>

namespace salamander::service {

void KeepCallbackQueue() {
  // A channel uses the queue from its first call with a callback on, and until it is destroyed: this one never is. The
  // call itself reaches nobody, since its time is over.
  // The pointer is never read; without [[gnu::used]] it would not be stored, and the stub be a leak.
  [[gnu::used]] static grpc::GenericStub* kept = [] {
    auto* const stub =
        new grpc::GenericStub(grpc::CreateChannel("ipv4:127.0.0.1:1", grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::time_point());
    const grpc::Slice slice;
    const grpc::ByteBuffer nothing(&slice, 1);  // one without a slice is no message
    grpc::ByteBuffer answer;
    std::promise<void> done;
    stub->UnaryCall(&context, "/none", grpc::StubOptions(), &nothing, &answer, [&](grpc::Status) { done.set_value(); });
    done.get_future().wait();
    return stub;
  }();
}

}  // namespace salamander::service
