#include "tests/clients/golden_prompt.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/model/safetensors.h"
#include "tests/testing/make_checkpoint.h"
#include "tests/testing/paths.h"

namespace salamander::testing {
namespace {

std::vector<int32_t> Ints(const model::SafetensorsFile& file, const std::string& tensor) {
  const model::TensorView& view = file.tensors().at(tensor);
  const auto* data = reinterpret_cast<const int32_t*>(view.data);
  return {data, data + view.elements()};
}

}  // namespace

GoldenPrompt LoadGoldenPrompt(const std::string& name) {
  GoldenPrompt golden{.checkpoint = GoldenCheckpoint(name)};
  const auto file = model::SafetensorsFile::Open(TestData(absl::StrCat("golden/", name, "/golden.safetensors")));
  if (!file.ok()) {
    ADD_FAILURE() << file.status();
    return golden;
  }
  golden.continuation = Ints(**file, "continuation");
  golden.prompt_file = absl::StrCat(::testing::TempDir(), "golden_", name, "_", getpid(), ".json");
  std::ofstream(golden.prompt_file) << absl::StrCat("[", absl::StrJoin(Ints(**file, "prompt"), ","), "]");
  return golden;
}

}  // namespace salamander::testing
