#include "common/service/trace_context.h"

#include <algorithm>
#include <cstddef>

namespace salamander::service {
namespace {

constexpr std::string_view kHex = "0123456789abcdef";

bool IsHex(std::string_view text) { return text.find_first_not_of(kHex) == std::string_view::npos; }
bool IsZero(std::string_view text) { return text.find_first_not_of('0') == std::string_view::npos; }

std::string_view Trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t";
  const size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

// key=value; a key may be TENANT@SYSTEM.
bool IsMember(std::string_view member) {
  constexpr size_t kMostKey = 256, kMostValue = 256;
  constexpr std::string_view kKey = "abcdefghijklmnopqrstuvwxyz0123456789_-*/@";
  const size_t equals = member.find('=');
  if (equals == std::string_view::npos) return false;
  const std::string_view key = member.substr(0, equals), value = member.substr(equals + 1);
  const bool good_value =
      std::all_of(value.begin(), value.end(), [](char c) { return c >= 0x20 && c <= 0x7e && c != ',' && c != '='; });
  return !key.empty() && key.size() <= kMostKey && key.find_first_not_of(kKey) == std::string_view::npos &&
         std::count(key.begin(), key.end(), '@') <= 1 && !value.empty() && value.size() <= kMostValue && good_value;
}

}  // namespace

bool IsTraceparent(std::string_view value) {
  // VERSION-TRACE-PARENT-FLAGS, of 2, 32, 16 and 2 digits. Later versions may go on after another dash.
  constexpr size_t kLength = 55;
  if (value.size() < kLength || value[2] != '-' || value[35] != '-' || value[52] != '-') return false;
  const std::string_view version = value.substr(0, 2), trace = value.substr(3, 32), parent = value.substr(36, 16);
  if (!IsHex(version) || !IsHex(trace) || !IsHex(parent) || !IsHex(value.substr(53, 2))) return false;
  if (version == "ff" || IsZero(trace) || IsZero(parent)) return false;
  return value.size() == kLength || (version != "00" && value[kLength] == '-');
}

bool IsTracestate(std::string_view value) {
  constexpr int kMostMembers = 32;
  int members = 0;
  for (size_t begin = 0; begin <= value.size();) {
    const size_t end = std::min(value.find(',', begin), value.size());
    const std::string_view member = Trimmed(value.substr(begin, end - begin));
    begin = end + 1;
    if (member.empty()) continue;  // as the specification allows
    if (!IsMember(member) || ++members > kMostMembers) return false;
  }
  return members > 0;
}

void TraceContext::AddTo(grpc::ClientContext* call) const {
  if (traceparent.empty()) return;
  call->AddMetadata(kTraceparentKey, traceparent);
  if (!tracestate.empty()) call->AddMetadata(kTracestateKey, tracestate);
}

TraceContext TraceContextOf(const grpc::ServerContextBase& call) {
  const auto& metadata = call.client_metadata();
  const auto parents = metadata.equal_range(kTraceparentKey);
  TraceContext context;
  if (parents.first == parents.second || std::next(parents.first) != parents.second) return context;
  const std::string_view parent(parents.first->second.data(), parents.first->second.size());
  if (!IsTraceparent(parent)) return context;
  context.traceparent = parent;
  const auto states = metadata.equal_range(kTracestateKey);
  for (auto state = states.first; state != states.second; ++state) {
    if (!context.tracestate.empty()) context.tracestate += ',';
    context.tracestate.append(state->second.data(), state->second.size());
  }
  if (!IsTracestate(context.tracestate)) context.tracestate.clear();
  return context;
}

}  // namespace salamander::service
