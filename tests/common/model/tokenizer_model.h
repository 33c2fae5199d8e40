// Small SentencePiece models made by hand, in protobuf's wire format, for tests.
#ifndef SALAMANDER_TESTS_COMMON_MODEL_TOKENIZER_MODEL_H_
#define SALAMANDER_TESTS_COMMON_MODEL_TOKENIZER_MODEL_H_

#include <bit>
#include <cstdint>
#include <string>
#include <vector>

#include "common/model/sentencepiece_model.h"

namespace salamander::testing {

struct TokenizerModelOptions {
  // After <unk>, <s>, </s> and the 256 bytes; earlier pieces merge first.
  std::vector<model::Piece> pieces;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = false;
};

// A BPE ModelProto with byte fallback and no character map.
inline std::string MakeTokenizerModel(const TokenizerModelOptions& options) {
  const auto varint = [](uint64_t value) {
    std::string out;
    for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
    out.push_back(static_cast<char>(value));
    return out;
  };
  const auto number = [&](int field, uint64_t value) { return varint(field << 3) + varint(value); };
  const auto bytes = [&](int field, const std::string& value) {
    return varint(field << 3 | 2) + varint(value.size()) + value;
  };
  float score = 0;
  const auto piece = [&](const std::string& text, model::PieceType type) {
    const auto bits = std::bit_cast<uint32_t>(score -= 1);
    const std::string little_endian(reinterpret_cast<const char*>(&bits), sizeof(bits));
    return bytes(1, bytes(1, text) + varint(2 << 3 | 5) + little_endian + number(3, static_cast<uint64_t>(type)));
  };
  std::string out = piece("<unk>", model::PieceType::kUnknown) + piece("<s>", model::PieceType::kControl) +
                    piece("</s>", model::PieceType::kControl);
  for (int byte = 0; byte < 256; ++byte) {
    constexpr char kDigits[] = "0123456789ABCDEF";
    out += piece(std::string("<0x") + kDigits[byte / 16] + kDigits[byte % 16] + ">", model::PieceType::kByte);
  }
  for (const model::Piece& more : options.pieces) out += piece(more.text, more.type);
  out += bytes(2, number(3, 2) + number(35, 1));  // trainer: BPE, byte fallback
  out += bytes(
      3, bytes(1, "identity") + number(3, options.add_dummy_prefix) + number(4, options.remove_extra_whitespaces));
  return out;
}

}  // namespace salamander::testing

#endif  // SALAMANDER_TESTS_COMMON_MODEL_TOKENIZER_MODEL_H_
