#include "common/model/run_encoder.h"

#include <gmock/gmock.h>

#include <random>

#include "common/model/read_file.h"
#include "tests/common/model/tokenizer_model.h"
#include "tests/testing/paths.h"

namespace salamander::model {
namespace {

bool NoneSpecial(std::string_view) { return false; }

// Words and marks in random order, some 20 KB: many parts.
std::string RandomText(uint32_t seed, const std::vector<std::string>& words) {
  std::mt19937 random(seed);
  std::string text;
  while (text.size() < 20000) text += words[random() % words.size()];
  return text;
}

// The ids in parts must be those of the whole.
void ExpectExact(const std::string& serialized, const std::vector<std::string>& words) {
  const auto model = ParseSentencePieceModel(serialized, NoneSpecial);
  ASSERT_TRUE(model.ok()) << model.status();
  const auto whole = SentencePiece::Open(model->serialized);
  const auto in_parts = RunEncoder::Create(*model);
  ASSERT_TRUE(whole.ok()) << whole.status();
  ASSERT_TRUE(in_parts.ok()) << in_parts.status();
  for (uint32_t seed = 0; seed < 20; ++seed) {
    const std::string text = RandomText(seed, words);
    std::vector<int32_t> expected, actual;
    ASSERT_TRUE((*whole)->Encode(text, expected).ok());
    ASSERT_TRUE((*in_parts)->Encode(text, actual).ok());
    ASSERT_GT(expected.size(), 1000u);
    EXPECT_EQ(actual, expected) << "seed " << seed;
  }
}

TEST(RunEncoderTest, IsExactForTheDemoModel) {
  const auto model = ReadFile(testing::TestData("../../tools/demo/sala-12m/tokenizer.model"));
  ASSERT_TRUE(model.ok()) << model.status();
  ExpectExact(*model, {"the ", " secret", "  ", "key", " \xCC\x81", "\t", "caf\xC3\xA9 ", "\xE4\xB8\xAD", " \n",
                       "60817 ", ".", "\xE2\x96\x81", " \xE2\x96\x81 ", "<nl> ", "\xE3\x80\x80", "licence, "});
}

const std::vector<std::string> kPlainWords = {"a",    "b",        " ",    "\n",  "ab",  "  a",
                                              "\n\n", "\xC3\xA9", "\n  ", "x\n", "\r\n"};

// Newlines merge with one another and with spaces here: only some of them may be cut behind.
std::vector<Piece> PlainPieces() {
  return {{"\n\n"},
          {"\xE2\x96\x81"
           "a"},
          {"ab"},
          {"\n\xE2\x96\x81"},
          {"b\n"},
          {"a"},
          {"b"},
          {"\n"},
          {"\xE2\x96\x81"},
          {" a", PieceType::kUserDefined}};
}

TEST(RunEncoderTest, IsExactForTextKeptAsItIs) {
  ExpectExact(testing::MakeTokenizerModel({.pieces = PlainPieces(), .add_dummy_prefix = true}), kPlainWords);
  ExpectExact(testing::MakeTokenizerModel({.pieces = PlainPieces(), .add_dummy_prefix = false}), kPlainWords);
}

TEST(RunEncoderTest, IsExactForFoldedSpaces) {
  ExpectExact(testing::MakeTokenizerModel({.pieces = {{"\xE2\x96\x81"
                                                       "a"},
                                                      {"ab"},
                                                      {"a"},
                                                      {"b"},
                                                      {"\xE2\x96\x81"}},
                                           .remove_extra_whitespaces = true}),
              kPlainWords);
  // A piece that spans words: nothing may be cut.
  ExpectExact(testing::MakeTokenizerModel({.pieces = {{"b\xE2\x96\x81"
                                                       "a"},
                                                      {"b\xE2\x96\x81"},
                                                      {"a"},
                                                      {"b"},
                                                      {"\xE2\x96\x81"}},
                                           .remove_extra_whitespaces = true}),
              kPlainWords);
}

TEST(SentencePieceModelTest, EveryTruncationIsRefusedOrLoads) {
  const std::string whole = testing::MakeTokenizerModel({.pieces = PlainPieces()});
  ASSERT_TRUE(ParseSentencePieceModel(whole, NoneSpecial).ok());
  for (size_t length = 0; length < whole.size(); ++length) {
    const auto model = ParseSentencePieceModel(whole.substr(0, length), NoneSpecial);
    if (!model.ok()) continue;
    EXPECT_LE(model->pieces.size(), 259u + PlainPieces().size());
  }
  EXPECT_FALSE(ParseSentencePieceModel("", NoneSpecial).ok());
  EXPECT_FALSE(ParseSentencePieceModel(std::string(20, '\xFF'), NoneSpecial).ok());
}

TEST(SentencePieceTest, RefusesWhatSentencePieceRefuses) {
  EXPECT_EQ(SentencePiece::Open("no model").status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace salamander::model
