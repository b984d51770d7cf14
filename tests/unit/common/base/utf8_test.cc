#include "common/base/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace expertmesh {
namespace {

TEST(Utf8Test, CharactersOfEachLength) {
  uint32_t code = 0;
  EXPECT_EQ(Utf8Character("a", &code), 1u);
  EXPECT_EQ(code, 0x61u);
  EXPECT_EQ(Utf8Character("\xc3\xa9x", &code), 2u);
  EXPECT_EQ(code, 0xe9u);
  EXPECT_EQ(Utf8Character("\xe2\x82\xac", &code), 3u);
  EXPECT_EQ(code, 0x20acu);
  EXPECT_EQ(Utf8Character("\xf0\x9f\x99\x82", &code), 4u);
  EXPECT_EQ(code, 0x1f642u);
}

TEST(Utf8Test, WhatIsNoCharacter) {
  uint32_t code = 0;
  for (const std::string text : {"", "\x80", "\xc3", "\xc3(", "\xc0\xaf", "\xe0\x80\xaf",
                                 "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xff", "\xe2\x82"}) {
    EXPECT_EQ(Utf8Character(text, &code), 0u) << testing::PrintToString(text);
  }
}

TEST(Utf8Test, WhatIsNoneIsReplacedByteByByte) {
  EXPECT_EQ(ValidUtf8("na\xc3\xafve\n"), "na\xc3\xafve\n");
  EXPECT_EQ(ValidUtf8("a\xffz\xc3"), "a\xef\xbf\xbdz\xef\xbf\xbd");
  EXPECT_EQ(ValidUtf8("\xed\xa0\x80"), "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
  EXPECT_EQ(ValidUtf8(""), "");
}

}  // namespace
}  // namespace expertmesh
