// UTF-8 as the Unicode standard's table 3-7 has it: no overlong forms, no surrogates, nothing above U+10FFFF.
#ifndef SALAMANDER_COMMON_MODEL_UTF8_H_
#define SALAMANDER_COMMON_MODEL_UTF8_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace salamander::model {

enum class Utf8Kind {
  kCharacter,   // `bytes` bytes are one character
  kIncomplete,  // all `bytes` bytes to the end may become a character with more bytes
  kInvalid,     // `bytes` bytes can be no part of a character
};

struct Utf8Step {
  Utf8Kind kind;
  size_t bytes;
};

// What `text`, which must not be empty, begins with.
Utf8Step NextUtf8(std::string_view text);

// Offset of the first byte that is not UTF-8 (an unfinished character at the end is not), or npos.
size_t FindInvalidUtf8(std::string_view text);

// `text` with each stretch that is not UTF-8 as U+FFFD.
std::string ReplaceInvalidUtf8(std::string_view text);

// Length of `text` without the unfinished character that it may end with.
size_t CompleteUtf8Bytes(std::string_view text);

}  // namespace salamander::model

#endif  // SALAMANDER_COMMON_MODEL_UTF8_H_
