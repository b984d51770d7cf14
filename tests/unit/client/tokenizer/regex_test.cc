#include "client/cpp/tokenizer/regex.h"

#include <string>
#include <vector>

#include "client/cpp/tokenizer/regex_dialect.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace expertmesh::tokenizer {
namespace {

using ::testing::HasSubstr;
using Strings = std::vector<std::string>;

Strings Matches(const std::string& pattern, const std::string& text) {
  const absl::StatusOr<Regex> regex = Regex::Compile(pattern);
  EXPECT_TRUE(regex.ok()) << pattern << ": " << regex.status();
  std::vector<ByteRange> ranges;
  Strings matches;
  if (regex.ok()) {
    EXPECT_TRUE(regex->FindAll(text, &ranges).ok());
    for (const ByteRange& range : ranges) {
      matches.push_back(text.substr(range.begin, range.size()));
    }
  }
  return matches;
}

TEST(Regex, FindsOneAfterTheOther) {
  EXPECT_EQ(Matches("\\p{L}+", "ab, cé 中1"), (Strings{"ab", "cé", "中"}));
  EXPECT_EQ(Matches("x", ""), Strings());
  EXPECT_EQ(Matches("(?<=a)b", "abab"), (Strings{"b", "b"}));
  EXPECT_EQ(Matches("^a", "a\na"), (Strings{"a", "a"}));
  EXPECT_EQ(Matches("\\s+$", "a  \n b"), (Strings{"  "}));
}

TEST(Regex, EmptyMatches) {
  std::vector<ByteRange> ranges;
  const Regex regex = *Regex::Compile("x*");
  ASSERT_TRUE(regex.FindAll("éxx中", &ranges).ok());
  std::vector<std::pair<size_t, size_t>> found;
  for (const ByteRange& range : ranges) {
    found.emplace_back(range.begin, range.end);
  }
  // At 0, the xx, and at the end; not right behind the xx.
  EXPECT_EQ(found, (std::vector<std::pair<size_t, size_t>>{{0, 0}, {2, 4}, {7, 7}}));
}

// A match far behind the place where the search begins, across many windows of it.
TEST(Regex, FindsFarAway) {
  for (const size_t away : {255u, 256u, 257u, 1000u, 5000u}) {
    std::string text;
    while (text.size() < away) {
      text += "é";
    }
    EXPECT_EQ(Matches("xy", text + "xy"), (Strings{"xy"})) << away;
    EXPECT_EQ(Matches("[^é]", text + "x"), (Strings{"x"})) << away;
    EXPECT_EQ(Matches("(?<=é)x|$", text + "x"), (Strings{"x"})) << away;
  }
}

TEST(Regex, LiteralsAreLiteral) {
  const Regex regex = *Regex::Literal("a.*[(\\]{1}?+|^$-#");
  std::vector<ByteRange> ranges;
  ASSERT_TRUE(regex.FindAll("aaa a.*[(\\]{1}?+|^$-# b", &ranges).ok());
  ASSERT_EQ(ranges.size(), 1u);
  EXPECT_EQ(ranges[0].begin, 4u);
}

// Where PCRE2 by itself reads something else.
TEST(Regex, MeansWhatOnigurumaMeans) {
  EXPECT_EQ(Matches("\\s", "a\u180e\u00a0b"), (Strings{"\u00a0"}));
  EXPECT_EQ(Matches("[^\\s]", "\u180e "), (Strings{"\u180e"}));
  EXPECT_EQ(Matches("\\S+", " a\u180eb "), (Strings{"a\u180eb"}));
  EXPECT_EQ(Matches("[\\Sx]+", " a\u180eb "), (Strings{"a\u180eb"}));
  EXPECT_EQ(Matches("a{2}+b", "aaaab"), (Strings{"aaaab"}));
  EXPECT_EQ(Matches("a{1,2}+a", "aa"), (Strings{"aa"}));
  EXPECT_EQ(Matches("(ab){1,2}+ab", "abab"), (Strings{"abab"}));
  EXPECT_EQ(Matches("a{,2}b", "aaab"), (Strings{"aab"}));
  EXPECT_EQ(Matches("a{x}", "a{x}"), (Strings{"a{x}"}));
  EXPECT_EQ(Matches("\\v", "\n\x0b"), (Strings{"\x0b"}));
  EXPECT_EQ(Matches("\\p{Han}+", "中、国"), (Strings{"中", "国"}));
  EXPECT_EQ(Matches("\\u4e2d", "中国"), (Strings{"中"}));
  EXPECT_EQ(Matches("\\x{4e2d}|\\x41", "A中"), (Strings{"A", "中"}));
  EXPECT_EQ(Matches("\\p{^L}|\\P{L}", "a1"), (Strings{"1"}));
}

TEST(Regex, CaselessGroups) {
  EXPECT_EQ(Matches("(?i:'s|'ll)x|S", "'Sx 'lLx 'sX S s"), (Strings{"'Sx", "'lLx", "S"}));
  EXPECT_EQ(Matches("(?i:[sdmt])", "Sſx"), (Strings{"S", "ſ"}));
}

TEST(Regex, RefusesWhatItMightMisread) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"a\\w", "'\\\\w' is not supported; supported: \\s"},
      {"\\b", "not supported"},
      {"\\h", "not supported"},
      {"\\R", "not supported"},
      {"\\1", "not supported"},
      {"\\pL", "a name in braces"},
      {"\\p{Alpha9}", "neither a general category"},
      {"\\p{Lx}", "neither a general category"},
      {"\\x80", "above 7F"},
      {"\\x{110000}", ""},
      {"\\x4", "two digits"},
      {"\\u12", "four"},
      {"[a[b]]", "sets in sets"},
      {"[a&&b]", "sets in sets"},
      {"[[:alpha:]]", "sets in sets"},
      {"[]a]", "begins with ']'"},
      {"[\\s-a]", "between a class and a character"},
      {"[a-\\s]", "between a character and a class"},
      {"[\\A]", "an anchor in a set"},
      {"[ab", "a ']' is missing, at byte 3"},
      {"(ab", "a ')' is missing"},
      {"ab)", "closes nothing, at byte 2"},
      {"(?i)ab", "of groups only"},
      {"(?<name>a)", "of groups only"},
      {"(?#x)", "of groups only"},
      {"(?~a)", "of groups only"},
      {"a**", "repeats nothing"},
      {"*a", "repeats nothing"},
      {"(?=a)*", "repeats nothing"},
      {"a|{2}", "nothing"},
      {"a{3,2}", "cannot be"},
      {"a{2}?", "different things"},
      {"a\\", "ends the pattern"},
      {"(?i:ss)", "none of ss"},
      {"(?i:sT)", "none of ss"},
      {"(?i:é)", "ASCII only"},
      {"(?i:[é])", "ASCII only"},
      {"(?i:[^a])", "no negated set"},
      {"(?i:\\s)", "no escape"},
      {"(?i:a+)", "by ? only"},
      {"(?i:a{2})", "caseless"},
  };
  for (const auto& [pattern, message] : cases) {
    const absl::StatusOr<Regex> regex = Regex::Compile(pattern);
    EXPECT_EQ(regex.status().code(), absl::StatusCode::kInvalidArgument) << pattern;
    EXPECT_THAT(std::string(regex.status().message()), HasSubstr(message)) << pattern;
  }
}

TEST(Regex, GivesUpOnTooManySteps) {
  const Regex regex = *Regex::Compile("(?:a+)+[bc]");
  std::vector<ByteRange> ranges;
  const absl::Status status = regex.FindAll(std::string(5000, 'a'), &ranges);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("gave up at byte 0 of 5000"));
}

// What comes back to every round of a loop outgrows the stack of the compiled matcher.
TEST(Regex, LongLoops) {
  const std::string text(200'000, 'a');
  EXPECT_EQ(Matches("(?:a|b)+", text), (Strings{text}));
}

TEST(RegexDialect, LeavesTheRestAlone) {
  const std::string same =
      "'s|[^\r\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[!-/:-~\\-\\]]+[a-z_-]*|(?>x)(?!y)";
  EXPECT_EQ(*Pcre2Pattern(same), same);
}

}  // namespace
}  // namespace expertmesh::tokenizer
