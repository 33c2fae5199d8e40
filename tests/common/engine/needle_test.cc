// The trained demo model finds a key in a long document: the whole way from text to text in one process.
#include <gtest/gtest.h>

#include <fstream>
#include <random>
#include <sstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/engine/local_session.h"
#include "common/model/tokenizer.h"
#include "tests/testing/paths.h"

namespace salamander::engine {
namespace {

// Text that is not about keys: the project's own licence, over and over.
std::string Filler(size_t bytes) {
  std::ifstream file(testing::TestData("../../LICENSE"));
  std::stringstream text;
  text << file.rdbuf();
  std::string filler;
  while (filler.size() < bytes) filler += text.str();
  return filler.substr(0, bytes);
}

class NeedleTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string folder = testing::TestData("../../tools/demo/sala-12m");
    auto tokenizer = model::Tokenizer::Load(folder);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
    const auto checkpoint = model::Checkpoint::Open(folder);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    auto model = Model::Load(**checkpoint, ops_.get(), &ledger_);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
  }

  // What the model answers when asked for the key hidden at `depth` (0 to 1) of `bytes` of text.
  absl::StatusOr<std::string> Ask(size_t bytes, double depth, const std::string& key, int64_t span_tokens,
                                  int64_t* prompt_tokens) {
    std::string text = Filler(bytes);
    const size_t space = text.find(' ', static_cast<size_t>(depth * static_cast<double>(bytes) * 0.99));
    text.insert(space, absl::StrCat(" The secret key of the golden harbor is ", key, "."));
    auto prompt = tokenizer_->EncodeChat(
        {{.role = "user", .content = absl::StrCat(text, "\nWhat is the secret key of the golden harbor?")}});
    if (!prompt.ok()) return prompt.status();
    *prompt_tokens = static_cast<int64_t>(prompt->size());
    auto session = LocalSession::Create(model_.get(), &ledger_, span_tokens);
    if (!session.ok()) return session.status();
    GenerationOptions options;
    options.sampling.temperature = 0;
    options.max_tokens = 16;
    std::string answer;
    const auto timing =
        (*session)->Generate(*prompt, options, tokenizer_.get(), nullptr, [&](const GeneratedToken& token) {
          answer += token.text;
          return true;
        });
    if (!timing.ok()) return timing.status();
    return answer;
  }

  MemoryLedger ledger_{int64_t{8} << 30};
  std::unique_ptr<kernels::Ops> ops_ = *kernels::CreateCpuOps(2);
  std::unique_ptr<model::Tokenizer> tokenizer_;
  std::unique_ptr<Model> model_;
};

TEST_F(NeedleTest, FindsTheKeyAtAnyDepth) {
  const MemoryLedger::Snapshot before = ledger_.Read();
  std::mt19937 random(3);
  for (const size_t bytes : {4000, 12000, 40000}) {
    for (const double depth : {0.05, 0.5, 0.9}) {
      const std::string key = absl::StrCat(10000 + random() % 90000);
      int64_t prompt_tokens = 0;
      const auto answer = Ask(bytes, depth, key, 1024, &prompt_tokens);
      ASSERT_TRUE(answer.ok()) << answer.status();
      EXPECT_EQ(*answer, key) << prompt_tokens << " tokens, depth " << depth;
      EXPECT_EQ(ledger_.Read(), before);
    }
  }
}

}  // namespace
}  // namespace salamander::engine
