#include "tests/testing/make_checkpoint.h"

#include <gmock/gmock.h>

#include <thread>
#include <vector>

#include "common/model/checkpoint.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_folder.h"

namespace salamander::testing {
namespace {

class GoldenTest : public ::testing::TestWithParam<const char*> {};

// GoldenCheckpoint ends the process if the file is not, byte for byte, the one that the oracle wrote.
TEST_P(GoldenTest, IsTheOraclesCheckpointAndLoads) {
  const auto checkpoint = model::Checkpoint::Open(GoldenCheckpoint(GetParam()));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->name(), GetParam());
}

TEST_P(GoldenTest, HasPromptAndContinuationWithinItsVocabulary) {
  const auto file = model::SafetensorsFile::Open(TestData("golden/" + std::string(GetParam()) + "/golden.safetensors"));
  ASSERT_TRUE(file.ok()) << file.status();
  for (const char* name : {"prompt", "continuation"}) {
    ASSERT_TRUE((*file)->tensors().contains(name));
    EXPECT_GE((*file)->tensors().at(name).elements(), 8);
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoldenTest, ::testing::Values("dense", "sparse", "crossing", "wide", "odd"));

TEST(MakeCheckpointTest, ManyAtOnceGiveTheSameWholeFile) {
  const TempFolder temp;
  const std::string& folder = temp.path();
  std::vector<std::jthread> threads;
  std::vector<std::string> hashes(4);
  for (std::string& hash : hashes) {
    threads.emplace_back([&hash, &folder] {
      const std::string minimal = R"({"hidden_size":32,"intermediate_size":64,"vocab_size":64,"num_hidden_layers":1,
          "num_attention_heads":2,"mixer_types":["minicpm4"],"dim_model_base":32,"max_position_embeddings":4096})";
      if (MakeCheckpoint(minimal, 7, folder).ok()) hash = FileHash(folder + "/model.safetensors");
    });
  }
  threads.clear();
  EXPECT_NE(hashes[0], "");
  EXPECT_THAT(hashes, ::testing::Each(hashes[0]));
}

}  // namespace
}  // namespace salamander::testing
