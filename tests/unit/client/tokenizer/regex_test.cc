#include "client/cpp/tokenizer/regex.h"

#include <string>
#include <thread>
#include <vector>

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
  EXPECT_EQ(Matches("\\w\\K", "ab1"), (Strings{"", "", ""}));
}

// A match far behind the place where the search begins, between many looks at the clock.
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

// Where engines differ, and where the syntax of Oniguruma differs from Ruby's.
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
  EXPECT_EQ(Matches("\\h+", "0aFg"), (Strings{"0aF"}));
  EXPECT_EQ(Matches("[a-z&&[^c]]+", "abcd"), (Strings{"ab", "d"}));
  EXPECT_EQ(Matches("[[:alpha:]]\\w*", "1é_2"), (Strings{"é_2"}));
  EXPECT_EQ(Matches("a{2}?", "aaa"), (Strings{"aa", ""}));
  EXPECT_EQ(Matches("a\\Kb", "xab"), (Strings{"b"}));
  EXPECT_EQ(Matches("\\Gb", "bxb"), (Strings{"b"}));
  EXPECT_EQ(Matches(".+", "a\nb"), (Strings{"a", "b"}));
}

TEST(Regex, CaselessGroups) {
  EXPECT_EQ(Matches("(?i:'s|'ll)x|S", "'Sx 'lLx 'sX S s"), (Strings{"'Sx", "'lLx", "S"}));
  EXPECT_EQ(Matches("(?i:[sdmt])", "Sſx"), (Strings{"S", "ſ"}));
  EXPECT_EQ(Matches("(?i:ss)", "ßSs"), (Strings{"ß", "Ss"}));
}

TEST(Regex, RefusesWhatOnigurumaCannotRead) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"[ab", "premature end of char-class"},
      {"(ab", "end pattern with unmatched parenthesis"},
      {"ab)", "unmatched close parenthesis"},
      {"*a", "target of repeat operator is not specified"},
      {"a{100001}", "too big number for repeat range"},
      {"a\\", "end pattern at escape"},
      {"\\p{Alpha9}", "invalid character property name {Alpha9}"},
      {"\\k<b>(?<a>x)", "undefined name <b> reference"},
      {"(?<a>\\g<a>)", "never ending recursion"},
      {std::string(5000, '(') + std::string(5000, ')'), "depth"},
  };
  for (const auto& [pattern, message] : cases) {
    const absl::StatusOr<Regex> regex = Regex::Compile(pattern);
    EXPECT_EQ(regex.status().code(), absl::StatusCode::kInvalidArgument) << pattern;
    EXPECT_THAT(std::string(regex.status().message()), HasSubstr(message)) << pattern;
  }
}

TEST(Regex, GivesUpOnTooManySteps) {
  const Regex regex = *Regex::Compile("(?:a|aa)+[bc]");
  std::vector<ByteRange> ranges;
  const absl::Status status = regex.FindAll(std::string(5000, 'a'), &ranges);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("gave up at byte 0 of 5000: retry-limit-in-match over"));
}

// A place to come back to for every round.
TEST(Regex, GivesUpOnTooMuchMemory) {
  const Regex regex = *Regex::Compile("(?:a|b)+");
  std::vector<ByteRange> ranges;
  const absl::Status status = regex.FindAll(std::string(7'000'000, 'a'), &ranges);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("match-stack limit over"));
}

TEST(Regex, LongLoops) {
  const std::string text(200'000, 'a');
  EXPECT_EQ(Matches("(?:a|b)+", text), (Strings{text}));
}

TEST(Regex, ThreadsShareOne) {
  const Regex regex = *Regex::Compile("\\p{L}+|\\s+(?!\\S)");
  std::vector<std::thread> threads;
  for (size_t length = 1; length <= 4; ++length) {
    threads.emplace_back([&regex, length] {
      std::string text;
      for (int i = 0; i < 1000; ++i) {
        text += std::string(length, 'a') + "1";
      }
      std::vector<ByteRange> ranges;
      ASSERT_TRUE(regex.FindAll(text, &ranges).ok());
      ASSERT_EQ(ranges.size(), 1000u);
      for (size_t i = 0; i < ranges.size(); ++i) {
        ASSERT_EQ(ranges[i].begin, i * (length + 1));
        ASSERT_EQ(ranges[i].size(), length);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

}  // namespace
}  // namespace expertmesh::tokenizer
