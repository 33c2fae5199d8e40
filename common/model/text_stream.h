// Output tokens to output text: whole UTF-8 characters only, and nothing that a stop text may still swallow.
//
//   TextStream stream(&tokenizer, {"\n\n"});
//   std::string text = stream.Push(token);   // what became certain
//   if (stream.stopped()) …                  // a stop text appeared; it and what follows are not returned
//   text += stream.Finish();                 // what was held back
#ifndef SALAMANDER_COMMON_MODEL_TEXT_STREAM_H_
#define SALAMANDER_COMMON_MODEL_TEXT_STREAM_H_

#include <cstdint>
#include <string>
#include <vector>

#include "common/model/tokenizer.h"

namespace salamander::model {

// One per sequence; not thread-safe. `tokenizer` may be null: then all text is empty.
class TextStream {
 public:
  TextStream(const Tokenizer* tokenizer, std::vector<std::string> stop_texts);

  std::string Push(int32_t token);
  // The held-back rest, with bytes that are no UTF-8 as U+FFFD; empty once stopped.
  std::string Finish();
  bool stopped() const { return stopped_; }

 private:
  std::string Release(bool everything);

  const Tokenizer* tokenizer_;
  std::vector<std::string> stop_texts_;
  std::string held_;
  // Whether the next token begins a text of its own, whose leading space is the encoder's mark.
  bool encoded_apart_ = true;
  bool stopped_ = false;
};

}  // namespace salamander::model

#endif  // SALAMANDER_COMMON_MODEL_TEXT_STREAM_H_
