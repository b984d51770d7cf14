#include "client/cpp/tokenizer/utf8.h"

#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace expertmesh::tokenizer {
namespace {

TEST(Utf8, FindsTheFirstInvalidByte) {
  const std::vector<std::pair<std::string, size_t>> cases = {
      {"", std::string::npos},
      {"aé中😀", std::string::npos},
      {std::string("a\0b", 3), std::string::npos},
      {"\xF4\x8F\xBF\xBF", std::string::npos},  // U+10FFFF
      {"ab\x80", 2},
      {"a\xC3", 1},
      {"a\xE4\xB8", 1},
      {"\xC0\x80", 0},          // Overlong.
      {"a\xE0\x9F\xBF", 1},     // Overlong.
      {"\xF0\x8F\xBF\xBF", 0},  // Overlong.
      {"\xED\xA0\x80", 0},      // A surrogate.
      {"\xF4\x90\x80\x80", 0},  // Above U+10FFFF.
      {"é\xFF", 2},
      {"\xE4\xB8"
       "a",
       0},
  };
  for (const auto& [text, at] : cases) {
    EXPECT_EQ(FindInvalidUtf8(text), at) << testing::PrintToString(text);
  }
}

TEST(Utf8, CharactersThereAndBack) {
  for (const char32_t code_point :
       {0x0u, 0x7Fu, 0x80u, 0x7FFu, 0x800u, 0xD7FFu, 0xE000u, 0xFFFFu, 0x10000u, 0x10FFFFu}) {
    std::string text = "é";
    AppendCharacter(code_point, &text);
    EXPECT_EQ(FindInvalidUtf8(text), std::string::npos);
    EXPECT_EQ(CodePoint(LastCharacter(text)), code_point);
    EXPECT_EQ(FirstCharacter(text), "é");
    EXPECT_EQ(CodePoint(FirstCharacter(LastCharacter(text))), code_point);
  }
}

TEST(Utf8, WhiteSpace) {
  size_t count = 0;
  for (char32_t c = 0; c < 0x3001; ++c) {
    count += IsWhiteSpace(c);
  }
  EXPECT_EQ(count, 25u);
  EXPECT_TRUE(IsWhiteSpace(0x3000));
  EXPECT_FALSE(IsWhiteSpace(0x180E));
  EXPECT_FALSE(IsWhiteSpace(0x200B));
}

std::vector<std::string> Streamed(const std::vector<std::string>& parts) {
  Utf8Stream stream;
  std::vector<std::string> shown;
  for (const std::string& part : parts) {
    shown.push_back(stream.Push(part));
  }
  shown.push_back(stream.Finish());
  return shown;
}

using Strings = std::vector<std::string>;

TEST(Utf8Stream, WaitsForWholeCharacters) {
  EXPECT_EQ(Streamed({"a", "\xF0", "\x9F\x98",
                      "\x80"
                      "b"}),
            (Strings{"a", "", "", "😀b", ""}));
  EXPECT_EQ(Streamed({"\xE4\xB8\xAD\xE4", "\xB8\xAD"}), (Strings{"中", "中", ""}));
}

TEST(Utf8Stream, OneReplacementForEachBrokenPart) {
  EXPECT_EQ(Streamed({"\x80\x81"}), (Strings{"��", ""}));
  EXPECT_EQ(Streamed({"\xF0\x9F\x98"
                      "a"}),
            (Strings{"�a", ""}));
  EXPECT_EQ(Streamed({"\xF0\x9F", "\xF0\x9F\x98\x80"}), (Strings{"", "�😀", ""}));
  EXPECT_EQ(Streamed({"\xED\xA0\x80"}), (Strings{"���", ""}));
  EXPECT_EQ(Streamed({"x\xE4\xB8"}), (Strings{"x", "�"}));
}

TEST(Utf8Stream, FinishBeginsAnew) {
  Utf8Stream stream;
  EXPECT_EQ(stream.Push("\xE4"), "");
  EXPECT_EQ(stream.Finish(), "�");
  EXPECT_EQ(stream.Push("a"), "a");
  EXPECT_EQ(stream.Finish(), "");
}

}  // namespace
}  // namespace expertmesh::tokenizer
