#include "router/hello_checks.h"

#include "absl/strings/str_cat.h"
#include "common/base/ids.h"
#include "router/planner.h"

namespace salamander::router {
namespace {

// Tokens of a page group (cluster.proto, WorkerHello).
constexpr int64_t kPageTokens = 1024;

absl::Status Missing(const std::string& rule) { return absl::InvalidArgumentError(absl::StrCat("hello.", rule)); }

absl::Status Differs(const v1::WorkerHello& hello, const std::string& what, const std::string& own,
                     const std::string& whose, const std::string& theirs) {
  return absl::FailedPreconditionError(
      absl::StrCat("worker ", hello.name(), " has ", what, " ", own, ", but ", whose, " has ", theirs));
}

}  // namespace

absl::Status CheckHello(const v1::WorkerHello& hello) {
  if (hello.role() != v1::WORKER_ROLE_PREFILL && hello.role() != v1::WORKER_ROLE_DECODE) {
    return Missing(absl::StrCat("role must be prefill or decode, got ", static_cast<int>(hello.role())));
  }
  if (hello.name().empty()) return Missing("name must not be empty");
  if (hello.instance_id() == 0) return Missing("instance_id must not be 0");
  if (hello.grpc_address().empty()) return Missing("grpc_address must not be empty");
  if (hello.model_fingerprint().empty()) return Missing("model_fingerprint must not be empty");
  if (hello.request_memory_bytes() < 0 || hello.page_group_bytes() < 0 || hello.bytes_per_request() < 0) {
    return Missing(absl::StrCat("request_memory_bytes, page_group_bytes and bytes_per_request must be ≥ 0, got ",
                                hello.request_memory_bytes(), ", ", hello.page_group_bytes(), " and ",
                                hello.bytes_per_request()));
  }
  if (hello.role() == v1::WORKER_ROLE_PREFILL && hello.max_span_tokens() < kSpanAlignTokens) {
    return Missing(
        absl::StrCat("max_span_tokens must be at least ", kSpanAlignTokens, ", got ", hello.max_span_tokens()));
  }
  return absl::OkStatus();
}

absl::Status CheckModel(const v1::WorkerHello& hello, const std::string& fingerprint) {
  if (fingerprint.empty() || hello.model_fingerprint() == fingerprint) return absl::OkStatus();
  return Differs(hello, "model fingerprint", hello.model_fingerprint(), "the router", fingerprint);
}

absl::Status CheckAgainst(const v1::WorkerHello& hello, const v1::WorkerHello& member) {
  if (hello.name() == member.name() && hello.instance_id() != member.instance_id()) {
    return absl::AlreadyExistsError(absl::StrCat("worker name ", hello.name(), " is taken by live instance ",
                                                 IdToString(member.instance_id()), " at ", member.grpc_address()));
  }
  const std::string whose = absl::StrCat("worker ", member.name());
  if (hello.model_fingerprint() != member.model_fingerprint()) {
    return Differs(hello, "model fingerprint", hello.model_fingerprint(), whose, member.model_fingerprint());
  }
  if (hello.kv_element_type() != member.kv_element_type()) {
    return Differs(hello, "element type", v1::ElementType_Name(hello.kv_element_type()), whose,
                   v1::ElementType_Name(member.kv_element_type()));
  }
  if (hello.stream_version() != member.stream_version()) {
    return Differs(hello, "stream version", absl::StrCat(hello.stream_version()), whose,
                   absl::StrCat(member.stream_version()));
  }
  return absl::OkStatus();
}

int64_t RequestBytes(const v1::WorkerHello& hello, int64_t tokens) {
  return (tokens + kPageTokens - 1) / kPageTokens * hello.page_group_bytes() + hello.bytes_per_request();
}

std::string RoleName(v1::WorkerRole role) { return role == v1::WORKER_ROLE_PREFILL ? "prefill" : "decode"; }

}  // namespace salamander::router
