#include "common/model/tokenizer.h"

#include <gmock/gmock.h>
#include <google/protobuf/stubs/common.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <iostream>
#include <thread>

#include "common/model/text_stream.h"
#include "tests/common/model/tokenizer_model.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_folder.h"

namespace salamander::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

std::string DemoFolder() { return testing::TestData("../../tools/demo/sala-12m"); }

std::unique_ptr<Tokenizer> Demo() {
  GOOGLE_PROTOBUF_VERIFY_VERSION;  // links the other protobuf into this program, as in the router
  auto tokenizer = Tokenizer::Load(DemoFolder());
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

std::string Decode(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  TextStream stream(&tokenizer, {});
  std::string text;
  for (const int32_t id : ids) text += stream.Push(id);
  return text + stream.Finish();
}

// Loads a hand-made tokenizer.model and, if not empty, tokenizer_config.json.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadMade(const testing::TokenizerModelOptions& options,
                                                    const std::string& tokenizer_config = "") {
  const testing::TempFolder folder;
  folder.Write("tokenizer.model", testing::MakeTokenizerModel(options));
  if (!tokenizer_config.empty()) folder.Write("tokenizer_config.json", tokenizer_config);
  return Tokenizer::Load(folder.path());
}

// The ids are SentencePiece's own for the parts, put together as the model was trained.
TEST(TokenizerTest, ChatIsThePromptFormatOfTheDemoModel) {
  const auto ids = Demo()->EncodeChat({{"user",
                                        "The harbor was quiet. The secret key of the golden harbor is 60817.\n"
                                        "What is the secret key of the golden harbor?"}});
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_THAT(*ids, ElementsAre(1, 3, 757, 5, 332, 323, 3438, 273, 669, 636, 4005, 306, 4021, 332, 393, 1063, 4003, 666,
                                295, 266, 359, 1508, 278, 323, 3438, 273, 296, 4001, 4070, 4059, 4071, 4056, 4074, 4021,
                                5, 3181, 296, 266, 393, 1063, 4003, 666, 295, 266, 359, 1508, 278, 323, 3438, 273, 4075,
                                4, 5, 3, 699, 371, 504, 5));
}

TEST(TokenizerTest, EveryTurnOfAChatIsClosed) {
  const auto ids = Demo()->EncodeChat({{"system", "a"}, {"user", "b"}});
  ASSERT_TRUE(ids.ok());
  EXPECT_EQ(std::count(ids->begin(), ids->end(), 3), 3);  // two turns and the answer's
  EXPECT_EQ(std::count(ids->begin(), ids->end(), 4), 2);
}

TEST(TokenizerTest, TextBeginsWithTheBeginToken) {
  EXPECT_THAT(*Demo()->EncodeText(" 60817"), ElementsAre(1, 4001, 4070, 4059, 4071, 4056, 4074));
  EXPECT_THAT(*Demo()->EncodeText(""), ElementsAre(1));
  EXPECT_THAT(*Demo()->EncodeText("\n\n"), ElementsAre(1, 5, 5));
}

TEST(TokenizerTest, SpecialTokensInWhatAUserWroteAreText) {
  const auto tokenizer = Demo();
  for (const std::string text : {"<|im_end|>", "<|im_start|>system", "<nl>", "</s>", "<s>", "<unk>", "<0x41>"}) {
    const auto ids = tokenizer->EncodeText(text);
    ASSERT_TRUE(ids.ok());
    EXPECT_EQ(ids->front(), 1);
    EXPECT_THAT(std::vector<int32_t>(ids->begin() + 1, ids->end()), ::testing::Each(::testing::Gt(5))) << text;
    EXPECT_EQ(Decode(*tokenizer, *ids), text);
    const auto chat = tokenizer->EncodeChat({{"user", text}});
    EXPECT_EQ(std::count(chat->begin(), chat->end(), 4), 1) << text;
  }
}

TEST(TokenizerTest, TextComesBackFromItsTokens) {
  const auto tokenizer = Demo();
  for (const std::string text :
       {"Hello, world.", "one\ntwo\n\nthree\n", "caf\xC3\xA9 \xE4\xB8\xAD\xE6\x96\x87 \xF0\x9F\xA6\x8E"}) {
    EXPECT_EQ(Decode(*tokenizer, *tokenizer->EncodeText(text)), text);
  }
}

TEST(TokenizerTest, TokenBytesOfEveryKind) {
  const auto tokenizer = Demo();
  EXPECT_EQ(tokenizer->vocab_size(), 4096);
  EXPECT_EQ(tokenizer->TokenBytes(1), "");
  EXPECT_EQ(tokenizer->TokenBytes(4), "");
  EXPECT_EQ(tokenizer->TokenBytes(5), "\n");
  EXPECT_EQ(tokenizer->TokenBytes(6 + 0xE4), "\xE4");
  EXPECT_EQ(tokenizer->TokenBytes(757), " user");
  EXPECT_EQ(tokenizer->TokenBytes(-1), "");
  EXPECT_EQ(tokenizer->TokenBytes(4096), "");
}

TEST(TokenizerTest, RefusesWhatIsNoUtf8) {
  const auto tokenizer = Demo();
  const absl::Status text = tokenizer->EncodeText("abc\xFF").status();
  EXPECT_EQ(text.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(text.message()), HasSubstr("byte 3"));
  const absl::Status chat = tokenizer->EncodeChat({{"user", "a"}, {"user", "\xC0"}}).status();
  EXPECT_THAT(std::string(chat.message()), HasSubstr("content of chat message 1"));
}

TEST(TokenizerTest, RefusesChatsThatTheTemplateDoesNotKnow) {
  const auto tokenizer = Demo();
  EXPECT_EQ(tokenizer->EncodeChat({}).status().code(), absl::StatusCode::kInvalidArgument);
  const absl::Status status = tokenizer->EncodeChat({{"user<|im_end|>", "a"}}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("user<|im_end|>"));
}

TEST(TokenizerTest, WithoutTokenizerModelIsNotFound) {
  EXPECT_EQ(Tokenizer::Load(testing::TempFolder().path()).status().code(), absl::StatusCode::kNotFound);
}

TEST(TokenizerTest, ABrokenTokenizerModelIsRefusedByPath) {
  const testing::TempFolder folder;
  folder.Write("tokenizer.model", "garbage");
  const absl::Status status = Tokenizer::Load(folder.path()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("tokenizer.model"));
}

TEST(TokenizerTest, WithoutTurnTokensThereIsTextAndNoChat) {
  const auto tokenizer = LoadMade({.pieces = {{"a"}}});
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_TRUE((*tokenizer)->EncodeText("a").ok());
  const absl::Status status = (*tokenizer)->EncodeChat({{"user", "a"}}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("<|im_start|>"));
}

// Without the piece <nl> a newline is what the vocabulary makes of it: here its byte.
TEST(TokenizerTest, WithoutNewlinePieceANewlineIsText) {
  const auto tokenizer = LoadMade({.pieces = {{"a"}}, .add_dummy_prefix = false});
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const int32_t a = 3 + 256, newline = 3 + '\n';
  EXPECT_THAT(*(*tokenizer)->EncodeText("a\na"), ElementsAre(1, a, newline, a));
  EXPECT_EQ((*tokenizer)->TokenBytes(newline), "\n");
  EXPECT_FALSE((*tokenizer)->EndsEncodedRun(newline));
}

// The released checkpoint's turn tokens are not in tokenizer.model but added by tokenizer_config.json.
TEST(TokenizerTest, TurnTokensMayBeAddedTokens) {
  const auto tokenizer =
      LoadMade({.pieces = {{"a"}}, .add_dummy_prefix = false},
               R"({"added_tokens_decoder":{"300":{"content":"<|im_end|>"},"301":{"content":"<|im_start|>"}}})");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->vocab_size(), 302);
  EXPECT_EQ((*tokenizer)->TokenBytes(300), "");
  const auto ids = (*tokenizer)->EncodeChat({{"user", "a<|im_end|>"}});
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_EQ(std::count(ids->begin(), ids->end(), 301), 2);
  EXPECT_EQ(std::count(ids->begin(), ids->end(), 300), 1);
  EXPECT_THAT(*(*tokenizer)->EncodeText("<|im_end|>"), Not(::testing::Contains(300)));
}

TEST(TokenizerTest, RefusesAddedTokensThatAreMalformed) {
  for (const char* config : {"[", R"({"added_tokens_decoder":3})", R"({"added_tokens_decoder":{"x":{"content":"a"}}})",
                             R"({"added_tokens_decoder":{"7":"a"}})"}) {
    const absl::Status status = LoadMade({}, config).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << config;
    EXPECT_THAT(std::string(status.message()), HasSubstr("tokenizer_config.json"));
  }
}

TEST(TokenizerTest, ManyThreadsMayEncodeAtOnce) {
  const auto tokenizer = Demo();
  const std::string text = "The secret key of the golden harbor is 60817.\nAnd more text.";
  const auto expected = tokenizer->EncodeText(text);
  std::vector<std::jthread> threads;
  std::atomic<int> right = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) right += *tokenizer->EncodeText(text) == *expected;
    });
  }
  threads.clear();
  EXPECT_EQ(right, 800);
}

// Several MB at a rate that does not fall with the length: one line of 2 MB takes at most some times as long per byte
// as one of 32 KB. (Encoded as one text it takes some ten times as long.)
TEST(TokenizerTest, LongTextsAreNotSlowerPerByte) {
  const auto tokenizer = Demo();
  std::string text;
  while (text.size() < (2u << 20)) text += "Each paragraph of a long document is about something else. ";
  const auto seconds = [&](std::string_view part, int times) {  // of this thread, whatever else the machine does
    const auto now = [] {
      timespec time{};
      clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
      return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
    };
    const double start = now();
    for (int i = 0; i < times; ++i) EXPECT_TRUE(tokenizer->EncodeText(part).ok());
    return now() - start;
  };
  const double short_seconds = seconds(std::string_view(text).substr(0, 32 << 10), 64);
  const double long_seconds = seconds(text, 1);
  std::cout << "tokenizes " << 1e-6 * static_cast<double>(text.size()) / long_seconds << " MB/s\n";
  EXPECT_LT(long_seconds, 2 * short_seconds) << short_seconds;
}

}  // namespace
}  // namespace salamander::model
