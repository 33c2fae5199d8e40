/* C interface of libsalamander_sentencepiece.so, the only place that sees SentencePiece's headers and library. */
#ifndef SALAMANDER_COMMON_MODEL_SENTENCEPIECE_PLUGIN_H_
#define SALAMANDER_COMMON_MODEL_SENTENCEPIECE_PLUGIN_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct SalamanderSentencePiece;

/* No memory crosses the border in either direction: the two sides may have different allocators. */
struct SalamanderSentencePieceApi {
  /* `model` is a serialized ModelProto. Null on failure, with a message in `error`, cut to `error_bytes`, 0-ended. */
  struct SalamanderSentencePiece* (*open)(const char* model, size_t bytes, char* error, size_t error_bytes);
  void (*close)(struct SalamanderSentencePiece* processor);
  /* Calls `sink` once with the ids; 0 on success. Any thread. */
  int (*encode)(const struct SalamanderSentencePiece* processor, const char* text, size_t bytes,
                void (*sink)(void* context, const int32_t* ids, size_t count), void* context);
};

/* The library's one exported symbol, by this name. */
#define SALAMANDER_SENTENCEPIECE_ENTRY "salamander_sentencepiece_api"
typedef const struct SalamanderSentencePieceApi* (*SalamanderSentencePieceEntry)(void);

#ifdef __cplusplus
}
#endif

#endif /* SALAMANDER_COMMON_MODEL_SENTENCEPIECE_PLUGIN_H_ */
