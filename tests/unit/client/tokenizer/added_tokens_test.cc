#include "client/cpp/tokenizer/added_tokens.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace expertmesh::tokenizer {
namespace {

AddedToken Token(const std::string& content, uint32_t id) {
  AddedToken token;
  token.id = id;
  token.content = content;
  return token;
}

// The parts of `text`: "(id|what it takes)" for a token, what is between them as it is.
std::string Parts(const TokenFinder& finder, const std::string& text) {
  const absl::StatusOr<std::vector<TextPart>> parts = finder.Find(text);
  EXPECT_TRUE(parts.ok()) << parts.status();
  std::string written;
  for (const TextPart& part : parts.value_or(std::vector<TextPart>())) {
    const std::string range(part.range.Of(text));
    EXPECT_FALSE(range.empty());
    written += part.id.has_value() ? "(" + std::to_string(*part.id) + "|" + range + ")" : range;
  }
  return written;
}

TokenFinder Finder(const std::vector<AddedToken>& tokens) {
  TokenFinder finder;
  for (const AddedToken& token : tokens) {
    EXPECT_TRUE(finder.Add(token, token.content).ok());
  }
  return finder;
}

TEST(TokenFinder, LongestFromTheLeft) {
  const TokenFinder finder = Finder({Token("aa", 1), Token("aab", 2), Token("b", 3)});
  EXPECT_EQ(Parts(finder, "aaab"), "(1|aa)a(3|b)");
  EXPECT_EQ(Parts(finder, "xaabb"), "x(2|aab)(3|b)");
  EXPECT_EQ(Parts(finder, "aaaa"), "(1|aa)(1|aa)");
  EXPECT_EQ(Parts(finder, ""), "");
  EXPECT_EQ(Parts(TokenFinder(), "aab"), "aab");
}

TEST(TokenFinder, FirstOfEqualOnes) {
  EXPECT_EQ(Parts(Finder({Token("a", 5), Token("a", 1)}), "a"), "(5|a)");
}

TEST(TokenFinder, WhiteSpaceAround) {
  AddedToken left = Token("<l>", 1);
  left.lstrip = true;
  AddedToken right = Token("<r>", 2);
  right.rstrip = true;
  const TokenFinder finder = Finder({left, right});
  EXPECT_EQ(Parts(finder, "a \u3000\n<l> b"), "a(1| \u3000\n<l>) b");
  EXPECT_EQ(Parts(finder, "a <r> \u00a0b"), "a (2|<r> \u00a0)b");
  // White space that one token took is gone for the next.
  EXPECT_EQ(Parts(finder, "a<r> \n<l>b"), "a(2|<r> \n)(1|<l>)b");
  EXPECT_EQ(Parts(finder, " <l>"), "(1| <l>)");
  EXPECT_EQ(Parts(finder, "<r> "), "(2|<r> )");
}

TEST(TokenFinder, SingleWord) {
  AddedToken word = Token("<w>", 1);
  word.single_word = true;
  const TokenFinder finder = Finder({word});
  for (const std::string text :
       {"a<w>", "<w>a", "é<w>", "<w>_", "<w>\u200d", "\u0301<w>", "<w>1"}) {
    EXPECT_EQ(Parts(finder, text), text);
  }
  EXPECT_EQ(Parts(finder, "<w>"), "(1|<w>)");
  EXPECT_EQ(Parts(finder, "<w>½"), "(1|<w>)½");
  EXPECT_EQ(Parts(finder, ".<w><w>"), ".(1|<w>)(1|<w>)");
}

Normalizer ReplaceXByY() {
  Normalizer normalizer;
  normalizer.Add(Replacement{*Regex::Literal("x"), "y"});
  return normalizer;
}

TEST(AddedTokens, LookedForAsWrittenOrNormalized) {
  AddedToken written = Token("x1", 1);
  AddedToken normalized = Token("x2", 2);
  normalized.normalized = true;
  const absl::StatusOr<AddedTokens> added =
      AddedTokens::Create({written, normalized}, ReplaceXByY());
  ASSERT_TRUE(added.ok()) << added.status();
  EXPECT_EQ(Parts(added->in_text(), "x1x2y1y2"), "(1|x1)x2y1y2");
  EXPECT_EQ(Parts(added->in_normalized_text(), "x1x2y1y2"), "x1x2y1(2|y2)");
}

// Normalized, both are "y".
TEST(AddedTokens, SpecialOnesFirst) {
  AddedToken ordinary = Token("x", 1);
  ordinary.normalized = true;
  AddedToken special = Token("y", 2);
  special.normalized = true;
  special.special = true;
  const absl::StatusOr<AddedTokens> added = AddedTokens::Create({ordinary, special}, ReplaceXByY());
  ASSERT_TRUE(added.ok()) << added.status();
  EXPECT_EQ(Parts(added->in_normalized_text(), "ay"), "a(2|y)");
}

}  // namespace
}  // namespace expertmesh::tokenizer
