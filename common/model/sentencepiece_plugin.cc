// Never include an Abseil header here: SentencePiece's declares an absl::string_view of its own.
#include "common/model/sentencepiece_plugin.h"

#include <sentencepiece_processor.h>

#include <cstdio>
#include <memory>
#include <vector>

struct SalamanderSentencePiece {
  sentencepiece::SentencePieceProcessor processor;
};

namespace {

static_assert(sizeof(int) == sizeof(int32_t));

SalamanderSentencePiece* Open(const char* model, size_t bytes, char* error, size_t error_bytes) {
  auto opened = std::make_unique<SalamanderSentencePiece>();
  const auto status = opened->processor.LoadFromSerializedProto(absl::string_view(model, bytes));
  if (status.ok()) return opened.release();
  std::snprintf(error, error_bytes, "%s", status.ToString().c_str());
  return nullptr;
}

void Close(SalamanderSentencePiece* processor) { delete processor; }

int Encode(const SalamanderSentencePiece* processor, const char* text, size_t bytes,
           void (*sink)(void* context, const int32_t* ids, size_t count), void* context) {
  std::vector<int> ids;
  if (!processor->processor.Encode(absl::string_view(text, bytes), &ids).ok()) return -1;
  sink(context, ids.data(), ids.size());
  return 0;
}

constexpr SalamanderSentencePieceApi kApi = {Open, Close, Encode};

}  // namespace

extern "C" __attribute__((visibility("default"))) const SalamanderSentencePieceApi* salamander_sentencepiece_api() {
  return &kApi;
}
