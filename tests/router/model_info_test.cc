#include "router/model_info.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/paths.h"

namespace salamander::router {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Turns text into its bytes, so that what was asked of it can be seen.
class ByteTokenizer final : public model::Tokenizer {
 public:
  int64_t vocab_size() const override { return 256; }
  absl::StatusOr<std::vector<int32_t>> EncodeText(std::string_view text) const override {
    return std::vector<int32_t>(text.begin(), text.end());
  }
  absl::StatusOr<std::vector<int32_t>> EncodeChat(const std::vector<model::ChatTurn>& turns) const override {
    std::vector<int32_t> tokens;
    for (const model::ChatTurn& turn : turns) {
      tokens.push_back(static_cast<int32_t>(turn.role.size()));
      tokens.insert(tokens.end(), turn.content.begin(), turn.content.end());
    }
    return tokens;
  }
  std::string TokenBytes(int32_t token) const override { return {static_cast<char>(token)}; }
};

ModelInfo WithTokenizer() {
  ModelInfo info;
  info.vocab_size = 256;
  info.tokenizer = std::make_unique<ByteTokenizer>();
  return info;
}

TEST(PromptTokens, EachKindItsWay) {
  const ModelInfo info = WithTokenizer();
  v1::Prompt prompt;
  prompt.set_text("ab");
  EXPECT_THAT(*PromptTokens(prompt, info), ElementsAre('a', 'b'));
  prompt.Clear();
  prompt.mutable_tokens()->add_ids(3);
  EXPECT_THAT(*PromptTokens(prompt, info), ElementsAre(3));
  prompt.Clear();
  v1::ChatMessage* message = prompt.mutable_chat()->add_messages();
  message->set_role("user");
  message->set_content("c");
  EXPECT_THAT(*PromptTokens(prompt, info), ElementsAre(4, 'c'));
}

TEST(PromptTokens, ChecksBeforeItTokenizes) {
  v1::Prompt prompt;
  prompt.set_text("\xff");
  EXPECT_THAT(std::string(PromptTokens(prompt, WithTokenizer()).status().message()), HasSubstr("prompt.text"));
  prompt.set_text("fine");
  const absl::Status status = PromptTokens(prompt, {.name = "m", .vocab_size = 10}).status();
  EXPECT_EQ(status, absl::InvalidArgumentError("prompt must be tokens, got text: model m has no tokenizer"));
}

TEST(LoadModelInfo, AFolderWithoutWeightsIsEnough) {
  const auto info = LoadModelInfo(testing::TestData("golden/dense/"));
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->name, "dense");
  EXPECT_EQ(info->fingerprint, "");
  EXPECT_GT(info->vocab_size, 0);
  EXPECT_EQ(info->tokenizer, nullptr);
}

TEST(LoadModelInfo, NamesWhatCannotBeRead) {
  const absl::Status status = LoadModelInfo("/nonexistent").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nonexistent/config.json"));
}

}  // namespace
}  // namespace salamander::router
