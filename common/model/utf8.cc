#include "common/model/utf8.h"

#include <algorithm>
#include <cstdint>

namespace salamander::model {
namespace {

struct Lead {
  size_t length;        // of the whole character; 0: no character begins with this byte
  uint8_t low = 0x80;   // range of the second byte, which is what rules out
  uint8_t high = 0xBF;  // overlong forms, surrogates and values above U+10FFFF
};

Lead ClassifyLead(uint8_t byte) {
  if (byte < 0x80) return {1};
  if (byte < 0xC2) return {0};
  if (byte < 0xE0) return {2};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0};
}

}  // namespace

Utf8Step NextUtf8(std::string_view text) {
  const Lead lead = ClassifyLead(static_cast<uint8_t>(text[0]));
  if (lead.length == 0) return {Utf8Kind::kInvalid, 1};
  for (size_t i = 1; i < lead.length; ++i) {
    if (i == text.size()) return {Utf8Kind::kIncomplete, i};
    const auto byte = static_cast<uint8_t>(text[i]);
    const bool fits = i == 1 ? lead.low <= byte && byte <= lead.high : 0x80 <= byte && byte <= 0xBF;
    if (!fits) return {Utf8Kind::kInvalid, i};
  }
  return {Utf8Kind::kCharacter, lead.length};
}

size_t FindInvalidUtf8(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const Utf8Step step = NextUtf8(text.substr(at));
    if (step.kind != Utf8Kind::kCharacter) return at;
    at += step.bytes;
  }
  return std::string_view::npos;
}

std::string ReplaceInvalidUtf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Step step = NextUtf8(text);
    out += step.kind == Utf8Kind::kCharacter ? text.substr(0, step.bytes) : std::string_view("\xEF\xBF\xBD");
    text.remove_prefix(step.bytes);
  }
  return out;
}

size_t CompleteUtf8Bytes(std::string_view text) {
  // A character has at most 4 bytes: an unfinished one begins in the last 3.
  for (size_t back = 1; back <= std::min<size_t>(3, text.size()); ++back) {
    const std::string_view tail = text.substr(text.size() - back);
    const bool continuation = (static_cast<uint8_t>(tail[0]) & 0xC0) == 0x80;
    if (continuation) continue;
    return NextUtf8(tail).kind == Utf8Kind::kIncomplete ? text.size() - back : text.size();
  }
  return text.size();
}

}  // namespace salamander::model
