#include "common/model/utf8.h"

#include <gmock/gmock.h>

namespace salamander::model {
namespace {

using std::string_view_literals::operator""sv;

TEST(FindInvalidUtf8Test, AcceptsEveryLengthOfCharacter) {
  EXPECT_EQ(FindInvalidUtf8(""), std::string_view::npos);
  EXPECT_EQ(FindInvalidUtf8("a\xC3\xA9\xE4\xB8\xAD\xF0\x9F\xA6\x8E\0z"sv), std::string_view::npos);
  EXPECT_EQ(FindInvalidUtf8("\xED\x9F\xBF\xEE\x80\x80\xF4\x8F\xBF\xBF"), std::string_view::npos);
}

TEST(FindInvalidUtf8Test, NamesTheFirstBadByte) {
  EXPECT_EQ(FindInvalidUtf8("ab\x80"), 2u);             // a continuation byte alone
  EXPECT_EQ(FindInvalidUtf8("ab\xC0\xAF"), 2u);         // overlong, two bytes
  EXPECT_EQ(FindInvalidUtf8("a\xE0\x9F\xBF"), 1u);      // overlong, three bytes
  EXPECT_EQ(FindInvalidUtf8("a\xF0\x8F\xBF\xBF"), 1u);  // overlong, four bytes
  EXPECT_EQ(FindInvalidUtf8("\xED\xA0\x80"), 0u);       // surrogate
  EXPECT_EQ(FindInvalidUtf8("x\xF4\x90\x80\x80"), 1u);  // above U+10FFFF
  EXPECT_EQ(FindInvalidUtf8("x\xFF"), 1u);
  EXPECT_EQ(FindInvalidUtf8("xyz\xE4\xB8"), 3u);  // unfinished
}

TEST(ReplaceInvalidUtf8Test, ReplacesEachStretchOnce) {
  EXPECT_EQ(ReplaceInvalidUtf8("a\xE4\xB8z\xFF\xC3"), "a\xEF\xBF\xBDz\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(ReplaceInvalidUtf8("\xE4\xB8\xAD"), "\xE4\xB8\xAD");
}

TEST(CompleteUtf8BytesTest, LeavesOutOnlyAnUnfinishedCharacter) {
  EXPECT_EQ(CompleteUtf8Bytes(""), 0u);
  EXPECT_EQ(CompleteUtf8Bytes("a\xF0\x9F\xA6"), 1u);
  EXPECT_EQ(CompleteUtf8Bytes("a\xF0\x9F\xA6\x8E"), 5u);
  EXPECT_EQ(CompleteUtf8Bytes("a\xE4\xB8"), 1u);
  EXPECT_EQ(CompleteUtf8Bytes("a\xED\xA0"), 3u);  // can become no character
  EXPECT_EQ(CompleteUtf8Bytes("\x80\x80\x80\x80"), 4u);
}

}  // namespace
}  // namespace salamander::model
