// The C++ client of a Salamander router.
//
//   ASSIGN_OR_RETURN(client::Client client, client::Client::Connect("127.0.0.1:7000"));
//   client::GenerateRequest request{.prompt = client::Text("Once upon a time"), .max_tokens = 64};
//   ASSIGN_OR_RETURN(client::Completion answer, client.Complete(request));
//
// or event by event, with progress while a long prompt is prefilled:
//
//   std::unique_ptr<client::GenerateCall> call = client.Generate(request, {.timeout = absl::Seconds(30)});
//   for (bool done = false; !done;) {
//     ASSIGN_OR_RETURN(client::Event event, call->Next());
//     if (auto* progress = std::get_if<client::Progress>(&event)) ShowProgress(*progress);
//     if (auto* chunk = std::get_if<client::TokenChunk>(&event)) std::cout << chunk->text;
//     done = std::holds_alternative<client::Finished>(event);
//   }
//
// Errors are the router's gRPC statuses with the same code and message (inference.proto lists them). UNAVAILABLE may be
// sent again, RESOURCE_EXHAUSTED later; the client never retries by itself. No gRPC or protobuf header is included.
#ifndef SALAMANDER_CLIENTS_CPP_CLIENT_H_
#define SALAMANDER_CLIENTS_CPP_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "clients/cpp/types.h"

namespace salamander::client {

// How a router is reached, and what it is shown.
struct ClientOptions {
  // Paths of PEM files. With `tls_ca`, the roots that the router's certificate is verified against, the connection is
  // TLS; a router that asks for a client's certificate is shown `tls_cert`. Renewed files are taken up.
  std::string tls_ca, tls_cert, tls_key;
  // The name that the router's certificate must have; empty: the target's host.
  std::string tls_server_name;
  // Sent with every call, if not empty.
  std::string api_key;
  // The cluster's shared secret, for operators: GetStatus needs no key with it.
  std::string cluster_token;
  absl::Duration connect_timeout = absl::Seconds(5);
  // Even if another client of this process is connected to the same target.
  bool own_connection = false;
};

struct CallOptions {
  // Sent to the router as the gRPC deadline: when it passes, all workers stop and the call ends in DEADLINE_EXCEEDED.
  absl::Duration timeout = absl::InfiniteDuration();
  // W3C trace context: the caller's place in its trace ("00-TRACE-SPAN-FLAGS") and what its systems add to it. The
  // cluster's log lines about the request name the trace. Not sent if empty.
  std::string traceparent, tracestate;
};

// Called on threads of the client library, one at a time for one call; they must not block.
struct GenerateCallbacks {
  std::function<void(const Event&)> on_event;
  // The last one, exactly once: OK after Finished, else why the call ended; and, after RESOURCE_EXHAUSTED, when the
  // router expects to have room, if it said so.
  std::function<void(const absl::Status&, std::optional<absl::Duration> retry_after)> on_end;
};

// One running Generate that nobody waits for.
class CallbackCall {
 public:
  virtual ~CallbackCall() = default;
  // Any thread; on_end still comes.
  virtual void Cancel() = 0;
};

// One running Generate. Next() from one thread at a time; Cancel() from any.
class GenerateCall {
 public:
  struct Impl;
  explicit GenerateCall(std::unique_ptr<Impl> impl);
  // Cancels the request if it still runs, and waits for the call's end (not for the workers').
  ~GenerateCall();
  GenerateCall(const GenerateCall&) = delete;
  GenerateCall& operator=(const GenerateCall&) = delete;

  // Blocks until the next event. Finished is the last one. An error ends the call: asking again gives the same error;
  // asking after Finished gives FAILED_PRECONDITION.
  absl::StatusOr<Event> Next();
  // After RESOURCE_EXHAUSTED: when the router expects to have room, if it said so.
  std::optional<absl::Duration> retry_after() const;
  // Every worker stops within one span or decode step. A Next() that waits returns CANCELLED.
  void Cancel();

 private:
  std::unique_ptr<Impl> impl_;
};

// A connection to one router. Thread-safe; movable. Calls must end before it does.
class Client {
 public:
  // `target` is HOST:PORT. UNAVAILABLE naming the target, and what is wrong with a certificate, if no connection stands
  // after `connect_timeout`; INVALID_ARGUMENT naming the file if one of the options' is not right.
  static absl::StatusOr<Client> Connect(const std::string& target, const ClientOptions& options = {});
  ~Client();
  Client(Client&&) noexcept;
  Client& operator=(Client&&) noexcept;

  // Starts a request; errors come out of the call's Next().
  std::unique_ptr<GenerateCall> Generate(const GenerateRequest& request, const CallOptions& options = {}) const;
  // The same without a thread that waits for events: for many requests at once. The client outlives the calls' ends.
  std::shared_ptr<CallbackCall> GenerateAsync(const GenerateRequest& request, GenerateCallbacks callbacks,
                                              const CallOptions& options = {}) const;
  // Runs a request to its end. `on_event`, if given, sees every event on this thread.
  absl::StatusOr<Completion> Complete(const GenerateRequest& request, const CallOptions& options = {},
                                      const std::function<void(const Event&)>& on_event = nullptr) const;

  // The token ids that Generate would run for this prompt.
  absl::StatusOr<std::vector<int32_t>> Tokenize(const Prompt& prompt, const CallOptions& options = {}) const;
  absl::StatusOr<ModelInfo> GetModel(const CallOptions& options = {}) const;
  absl::StatusOr<ClusterStatus> GetStatus(const CallOptions& options = {}) const;

 private:
  struct Impl;
  explicit Client(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace salamander::client

#endif  // SALAMANDER_CLIENTS_CPP_CLIENT_H_
