#include "common/base/peer_text.h"

#include <gtest/gtest.h>

#include <string>

namespace expertmesh {
namespace {

TEST(PeerTextTest, WhatIsPrintableStays) {
  for (const std::string text :
       {"", "a node's text: 5 < 6", "naïve 模型 🙂", "already \\n escaped"}) {
    EXPECT_EQ(PeerText(text), text);
  }
}

TEST(PeerTextTest, ControlCharactersAreShown) {
  EXPECT_EQ(PeerText("a\nb\r\tc\x1b[31m\x7f"), "a\\nb\\r\\tc\\x1b[31m\\x7f");
  EXPECT_EQ(PeerText(std::string("\0", 1)), "\\x00");
  // C1 controls, what reorders a line, and what ends one.
  EXPECT_EQ(PeerText("\u0085"), "\\xc2\\x85");
  EXPECT_EQ(PeerText("\u202e\u2028\ufeff"), "\\xe2\\x80\\xae\\xe2\\x80\\xa8\\xef\\xbb\\xbf");
}

TEST(PeerTextTest, BytesThatAreNoUtf8AreShown) {
  EXPECT_EQ(PeerText("\xff\xfe"), "\\xff\\xfe");
  EXPECT_EQ(PeerText("a\xc3"), "a\\xc3");                           // Ends too early.
  EXPECT_EQ(PeerText("\xc0\xaf"), "\\xc0\\xaf");                    // Longer than need be.
  EXPECT_EQ(PeerText("\xed\xa0\x80"), "\\xed\\xa0\\x80");           // Half a surrogate pair.
  EXPECT_EQ(PeerText("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80");  // Beyond the last character.
}

TEST(PeerTextTest, LongTextsAreCutBetweenCharactersAndSayHowLongTheyWere) {
  EXPECT_EQ(PeerText(std::string(1280, 'x')), std::string(1280, 'x'));
  EXPECT_EQ(PeerText(std::string(1281, 'x')), std::string(1280, 'x') + "... (cut, 1281 bytes)");
  EXPECT_EQ(PeerText("aéé", 4), "aé... (cut, 5 bytes)");
}

TEST(PeerTextTest, EscapesDoNotMakeItLonger) {
  const std::string text = PeerText(std::string(5'000'000, '\0'));
  EXPECT_LT(text.size(), kMostPeerText + 100);
  EXPECT_NE(text.find("(cut, 5000000 bytes)"), std::string::npos);
}

TEST(PeerTextTest, ATextThatWasMadePrintableStaysAsItIs) {
  const std::string once = PeerText("a\x1b\n\xff");
  EXPECT_EQ(PeerText(once), once);
}

TEST(CutTextTest, CutsBetweenCharacters) {
  EXPECT_EQ(CutText("abc", 5), "abc");
  EXPECT_EQ(CutText("abc", 2), "ab");
  EXPECT_EQ(CutText("aé", 2), "a");
  EXPECT_EQ(CutText("\x80\x80\x80", 2), "");
}

}  // namespace
}  // namespace expertmesh
