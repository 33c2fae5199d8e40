// W3C trace context (https://www.w3.org/TR/trace-context/) as gRPC metadata: a caller's place in its trace, passed on
// to every leg of a request and named in log lines. This project makes no spans of its own, so it passes on what came.
#ifndef SALAMANDER_COMMON_SERVICE_TRACE_CONTEXT_H_
#define SALAMANDER_COMMON_SERVICE_TRACE_CONTEXT_H_

#include <grpcpp/client_context.h>
#include <grpcpp/server_context.h>

#include <string>
#include <string_view>

namespace salamander::service {

inline constexpr char kTraceparentKey[] = "traceparent";
inline constexpr char kTracestateKey[] = "tracestate";

struct TraceContext {
  std::string traceparent;  // empty: there is no trace
  std::string tracestate;   // may be empty

  // 32 hexadecimal digits; empty if there is no trace.
  std::string trace_id() const { return traceparent.empty() ? "" : traceparent.substr(3, 32); }
  void AddTo(grpc::ClientContext* call) const;
};

// What the call carries, as the specification says: without a traceparent, with several or with a malformed one there
// is no trace; a malformed tracestate is left out, several are one list.
TraceContext TraceContextOf(const grpc::ServerContextBase& call);

// The grammars of the two.
bool IsTraceparent(std::string_view value);
bool IsTracestate(std::string_view value);

}  // namespace salamander::service

#endif  // SALAMANDER_COMMON_SERVICE_TRACE_CONTEXT_H_
