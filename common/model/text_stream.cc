#include "common/model/text_stream.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "common/model/utf8.h"

namespace salamander::model {
namespace {

// Where the longest end of `text` that begins `stop`, but is not all of it, starts; text.size() if there is none.
size_t PossibleStopStart(std::string_view text, std::string_view stop) {
  size_t start = text.size() - std::min(text.size(), stop.size() - 1);
  while (start < text.size() && !stop.starts_with(text.substr(start))) ++start;
  return start;
}

}  // namespace

TextStream::TextStream(const Tokenizer* tokenizer, std::vector<std::string> stop_texts)
    : tokenizer_(tokenizer), stop_texts_(std::move(stop_texts)) {
  std::erase(stop_texts_, "");
}

std::string TextStream::Push(int32_t token) {
  if (tokenizer_ == nullptr || stopped_) return "";
  const std::string bytes = tokenizer_->TokenBytes(token);
  const bool drop_space = encoded_apart_ && bytes.starts_with(' ');
  encoded_apart_ = tokenizer_->EndsEncodedRun(token) || (encoded_apart_ && bytes.empty());
  held_.append(bytes, drop_space ? 1 : 0);

  size_t stop = std::string::npos;
  for (const std::string& text : stop_texts_) stop = std::min(stop, held_.find(text));
  if (stop != std::string::npos) {
    stopped_ = true;
    return ReplaceInvalidUtf8(std::string_view(std::exchange(held_, "")).substr(0, stop));
  }
  return Release(/*everything=*/false);
}

std::string TextStream::Finish() { return Release(/*everything=*/true); }

std::string TextStream::Release(bool everything) {
  size_t certain = held_.size();
  if (!everything) {
    for (const std::string& text : stop_texts_) certain = std::min(certain, PossibleStopStart(held_, text));
    certain = CompleteUtf8Bytes(std::string_view(held_).substr(0, certain));
  }
  std::string out = ReplaceInvalidUtf8(std::string_view(held_).substr(0, certain));
  held_.erase(0, certain);
  return out;
}

}  // namespace salamander::model
