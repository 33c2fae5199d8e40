#include "common/model/text_stream.h"

#include <gmock/gmock.h>

#include "absl/status/status.h"
#include "common/model/utf8.h"

namespace salamander::model {
namespace {

// Token i gives the bytes of entry i; a newline ends an encoded run.
class TableTokenizer : public Tokenizer {
 public:
  explicit TableTokenizer(std::vector<std::string> table) : table_(std::move(table)) {}
  int64_t vocab_size() const override { return static_cast<int64_t>(table_.size()); }
  absl::StatusOr<std::vector<int32_t>> EncodeText(std::string_view) const override {
    return absl::FailedPreconditionError("decodes only");
  }
  absl::StatusOr<std::vector<int32_t>> EncodeChat(const std::vector<ChatTurn>&) const override {
    return absl::FailedPreconditionError("decodes only");
  }
  std::string TokenBytes(int32_t token) const override { return table_.at(token); }
  bool EndsEncodedRun(int32_t token) const override { return table_.at(token) == "\n"; }

 private:
  std::vector<std::string> table_;
};

// What each push and the finish give for a table pushed in order.
std::vector<std::string> Stream(const std::vector<std::string>& table, const std::vector<std::string>& stops) {
  const TableTokenizer tokenizer(table);
  TextStream stream(&tokenizer, stops);
  std::vector<std::string> out;
  for (size_t i = 0; i < table.size(); ++i) out.push_back(stream.Push(static_cast<int32_t>(i)));
  out.push_back(stream.Finish());
  return out;
}

using ::testing::ElementsAre;

TEST(TextStreamTest, DropsTheEncodersLeadingSpaceOnly) {
  EXPECT_THAT(Stream({" one", " two", "\n", " three", " four"}, {}),
              ElementsAre("one", " two", "\n", "three", " four", ""));
  EXPECT_THAT(Stream({"", " one", "  "}, {}), ElementsAre("", "one", "  ", ""));
}

TEST(TextStreamTest, HoldsBackHalfACharacter) {
  EXPECT_THAT(Stream({"a\xF0", "\x9F", "\xA6",
                      "\x8E"
                      "b"},
                     {}),
              ElementsAre("a", "", "",
                          "\xF0\x9F\xA6\x8E"
                          "b",
                          ""));
}

TEST(TextStreamTest, GivesUpOnBytesThatBecomeNoCharacter) {
  EXPECT_THAT(Stream({"\xE4", "x", "\xE4\xB8"}, {}), ElementsAre("", "\xEF\xBF\xBDx", "", "\xEF\xBF\xBD"));
}

TEST(TextStreamTest, StopTextAcrossTokensIsNotReturned) {
  EXPECT_THAT(Stream({"say E", "N", "D now"}, {"END"}), ElementsAre("say ", "", "", ""));
}

TEST(TextStreamTest, HeldTextComesOutOnceItIsNoStopText) {
  EXPECT_THAT(Stream({"say E", "N", "E", "N"}, {"END"}), ElementsAre("say ", "", "EN", "", "EN"));
}

TEST(TextStreamTest, TheEarliestOfSeveralStopTextsCounts) {
  EXPECT_THAT(Stream({"ab12cd"}, {"cd", "12"}), ElementsAre("ab", ""));
}

TEST(TextStreamTest, AStopTextThatOverlapsItselfIsFound) {
  EXPECT_THAT(Stream({"xa", "a", "a", "b"}, {"aab"}), ElementsAre("x", "", "a", "", ""));
}

TEST(TextStreamTest, SaysThatItStoppedAndStaysSo) {
  const TableTokenizer tokenizer({"a", "b"});
  TextStream stream(&tokenizer, {"a"});
  EXPECT_FALSE(stream.stopped());
  EXPECT_EQ(stream.Push(0), "");
  EXPECT_TRUE(stream.stopped());
  EXPECT_EQ(stream.Push(1), "");
  EXPECT_EQ(stream.Finish(), "");
}

TEST(TextStreamTest, WithoutTokenizerTextIsEmpty) {
  TextStream stream(nullptr, {"x"});
  EXPECT_EQ(stream.Push(7), "");
  EXPECT_EQ(stream.Finish(), "");
}

// However a text is cut into tokens, the pushes are whole characters and put together are the text before the stop.
TEST(TextStreamTest, AnyCutGivesTheSameText) {
  const std::string text = "caf\xC3\xA9 \xE4\xB8\xAD\xE6\x96\x87 \xF0\x9F\xA6\x8E.. END!";
  for (size_t first = 1; first < text.size(); ++first) {
    for (size_t second = first; second < text.size(); ++second) {
      const auto parts =
          Stream({text.substr(0, first), text.substr(first, second - first), text.substr(second)}, {"END"});
      std::string all;
      for (const std::string& part : parts) {
        EXPECT_EQ(FindInvalidUtf8(part), std::string::npos) << first << " " << second;
        all += part;
      }
      EXPECT_EQ(all, text.substr(0, text.find("END"))) << first << " " << second;
    }
  }
}

}  // namespace
}  // namespace salamander::model
