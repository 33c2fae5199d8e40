// Where a request's answer goes, whatever protocol the client speaks.
#ifndef SALAMANDER_ROUTER_CLIENT_STREAM_H_
#define SALAMANDER_ROUTER_CLIENT_STREAM_H_

#include <optional>

#include "absl/status/status.h"
#include "salamander/v1/inference.pb.h"

namespace salamander::router {

// Called from the request's executor; never blocks. What a slow client has not read yet is kept: at most a few messages
// and its own max_tokens.
class ClientStream {
 public:
  virtual ~ClientStream() = default;
  virtual void Send(v1::GenerateResponse message) = 0;
  // The last call, this or the other, exactly once; the stream may be gone when it returns.
  virtual void Complete(v1::GenerateResponse last) = 0;
  // `retry_after_seconds` goes with refusals that are worth trying again.
  virtual void Fail(const absl::Status& status, std::optional<double> retry_after_seconds) = 0;
};

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_CLIENT_STREAM_H_
