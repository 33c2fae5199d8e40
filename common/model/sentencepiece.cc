#include "common/model/sentencepiece.h"

#include <dlfcn.h>

#include <filesystem>
#include <string>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace salamander::model {
namespace {

constexpr char kPlugin[] = "libsalamander_sentencepiece.so";

absl::StatusOr<std::filesystem::path> FindPlugin() {
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return absl::InternalError(absl::StrCat("/proc/self/exe cannot be read: ", error.message()));
  const std::filesystem::path beside = program.parent_path() / kPlugin;
  const std::filesystem::path in_lib = program.parent_path().parent_path() / "lib" / kPlugin;
  for (const auto& path : {beside, in_lib}) {
    if (std::filesystem::exists(path, error)) return path;
  }
  return absl::FailedPreconditionError(
      absl::StrCat("the tokenizer's plugin is in neither of ", beside.string(), " and ", in_lib.string()));
}

// Gives the plugin its own protobuf although the process has another. RTLD_DEEPBIND does that, but ASan and TSan refuse
// it: they must see every allocation. For them the plugin, which is built without a sanitizer, goes into a linker
// namespace with a C library of its own, whose memory they need not know about.
void* OpenApart(const char* path) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return dlmopen(LM_ID_NEWLM, path, RTLD_NOW | RTLD_LOCAL);
#else
  return dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
#endif
}

absl::StatusOr<const SalamanderSentencePieceApi*> LoadPlugin() {
  ASSIGN_OR_RETURN(const std::filesystem::path path, FindPlugin());
  void* library = OpenApart(path.c_str());
  if (library == nullptr) return absl::FailedPreconditionError(absl::StrCat("tokenizer plugin: ", dlerror()));
  auto entry = reinterpret_cast<SalamanderSentencePieceEntry>(dlsym(library, SALAMANDER_SENTENCEPIECE_ENTRY));
  if (entry == nullptr) return absl::FailedPreconditionError(absl::StrCat("tokenizer plugin: ", dlerror()));
  return entry();
}

}  // namespace

absl::StatusOr<std::unique_ptr<SentencePiece>> SentencePiece::Open(std::string_view model) {
  static const absl::StatusOr<const SalamanderSentencePieceApi*> api = LoadPlugin();
  RETURN_IF_ERROR(api.status());
  char error[512] = "";
  SalamanderSentencePiece* processor = (*api)->open(model.data(), model.size(), error, sizeof(error));
  if (processor == nullptr) return absl::InvalidArgumentError(absl::StrCat("SentencePiece refuses the model: ", error));
  return std::unique_ptr<SentencePiece>(new SentencePiece(*api, processor));
}

absl::Status SentencePiece::Encode(std::string_view text, std::vector<int32_t>& ids) const {
  const auto append = [](void* context, const int32_t* more, size_t count) {
    auto& all = *static_cast<std::vector<int32_t>*>(context);
    all.insert(all.end(), more, more + count);
  };
  if (api_->encode(processor_, text.data(), text.size(), append, &ids) != 0) {
    return absl::InternalError(absl::StrCat("SentencePiece failed on a text of ", text.size(), " bytes"));
  }
  return absl::OkStatus();
}

}  // namespace salamander::model
