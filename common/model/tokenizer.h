// Text to token ids and back, with the model's special tokens and chat template.
//
// SentencePiece sits in a plugin library opened with RTLD_DEEPBIND, because Debian's carries its own protobuf, which
// kills a process that also links libprotobuf. Thread-safe: all methods are const.
#ifndef SALAMANDER_COMMON_MODEL_TOKENIZER_H_
#define SALAMANDER_COMMON_MODEL_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/model/utf8.h"

namespace salamander::model {

struct ChatTurn {
  std::string role;
  std::string content;
};

class Tokenizer {
 public:
  // Loads tokenizer.model of a checkpoint folder, and the tokens that tokenizer_config.json adds to it. The plugin is
  // looked for beside the program, then in its ../lib. NOT_FOUND only if the folder has no tokenizer.model.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& folder);
  virtual ~Tokenizer() = default;

  virtual int64_t vocab_size() const = 0;
  // Begin-of-text, then the text. Special tokens written in the text are ordinary text. A newline is the piece `<nl>`
  // where the vocabulary has it, and each line is then encoded on its own. INVALID_ARGUMENT with the byte offset if
  // `text` is not UTF-8.
  virtual absl::StatusOr<std::vector<int32_t>> EncodeText(std::string_view text) const = 0;
  // ChatML: <s>, per turn <|im_start|>{role}\n{content}<|im_end|>\n, then <|im_start|>assistant\n. Roles: system, user,
  // assistant, tool. The text between two special tokens is encoded on its own. FAILED_PRECONDITION if the vocabulary
  // has no <|im_start|> or <|im_end|>.
  virtual absl::StatusOr<std::vector<int32_t>> EncodeChat(const std::vector<ChatTurn>& turns) const = 0;
  // The bytes that one token adds to text; empty for control tokens. A byte-fallback piece gives one byte, possibly
  // half a character. Ids outside the vocabulary give nothing.
  virtual std::string TokenBytes(int32_t token) const = 0;
  // Whether text after `token` is encoded as a text of its own, so that a space that its first token's bytes begin with
  // is the encoder's mark and no part of the text.
  virtual bool EndsEncodedRun(int32_t token) const {
    static_cast<void>(token);
    return false;
  }
};

}  // namespace salamander::model

#endif  // SALAMANDER_COMMON_MODEL_TOKENIZER_H_
