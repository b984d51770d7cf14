#include "client/cpp/tokenizer/byte_level.h"

#include <set>
#include <string>

#include "client/cpp/tokenizer/utf8.h"
#include "gtest/gtest.h"

namespace expertmesh::tokenizer {
namespace {

std::string CharacterOf(int byte) {
  std::string text;
  AppendByteCharacter(static_cast<uint8_t>(byte), &text);
  return text;
}

TEST(ByteLevel, EveryByteHasItsOwnCharacter) {
  std::set<std::string> characters;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string character = CharacterOf(byte);
    EXPECT_EQ(FirstCharacter(character), character);
    EXPECT_EQ(ByteOfCharacter(CodePoint(character)), byte);
    characters.insert(character);
  }
  EXPECT_EQ(characters.size(), 256u);
}

TEST(ByteLevel, KnownCharacters) {
  EXPECT_EQ(CharacterOf('a'), "a");
  EXPECT_EQ(CharacterOf(' '), "Ġ");
  EXPECT_EQ(CharacterOf('\n'), "Ċ");
  EXPECT_EQ(CharacterOf(0), "Ā");
  EXPECT_EQ(CharacterOf(0x7F), "ġ");
  EXPECT_EQ(CharacterOf(0xA0), "ł");
  EXPECT_EQ(CharacterOf(0xAD), "Ń");
  EXPECT_EQ(CharacterOf(0xFF), "ÿ");
}

TEST(ByteLevel, NoByte) {
  EXPECT_EQ(ByteOfCharacter(' '), std::nullopt);
  EXPECT_EQ(ByteOfCharacter(0xAD), std::nullopt);
  EXPECT_EQ(ByteOfCharacter(0x144), std::nullopt);
  EXPECT_EQ(ByteOfCharacter(0x143), 0xAD);
  EXPECT_EQ(ByteOfCharacter(U'中'), std::nullopt);
}

TEST(ByteLevel, BytesOfToken) {
  EXPECT_EQ(BytesOfToken("Ġhi"), " hi");
  EXPECT_EQ(BytesOfToken("ä¸Ń"), "中");
  EXPECT_EQ(BytesOfToken("ä¸"), "\xE4\xB8");
  EXPECT_EQ(BytesOfToken("é"), "\xE9");
  // With a character from outside, all of it is taken as it is.
  EXPECT_EQ(BytesOfToken("é é"), "é é");
  EXPECT_EQ(BytesOfToken("<｜é｜>"), "<｜é｜>");
  EXPECT_EQ(BytesOfToken(""), "");
}

}  // namespace
}  // namespace expertmesh::tokenizer
