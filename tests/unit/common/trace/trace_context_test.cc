#include "common/trace/trace_context.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gtest/gtest.h"

namespace expertmesh::trace {
namespace {

constexpr char kTrace[] = "4bf92f3577b34da6a3ce929d0e0e4736";
constexpr char kSpan[] = "00f067aa0ba902b7";

std::string Parent(absl::string_view version, absl::string_view flags,
                   absl::string_view rest = "") {
  return absl::StrCat(version, "-", kTrace, "-", kSpan, "-", flags, rest);
}

std::string Formatted(const TraceContext& context) {
  const auto text = FormatTraceparent(context);
  return std::string(text.data(), text.size());
}

TEST(TraceContextTest, AValidTraceparentSaysIdsAndFlags) {
  const TraceContext context = ParseTraceparent(Parent("00", "01"));
  ASSERT_TRUE(context.valid());
  EXPECT_EQ(ToHex(context.trace_id), kTrace);
  EXPECT_EQ(ToHex(context.span_id), kSpan);
  EXPECT_TRUE(context.sampled());
  EXPECT_EQ(Formatted(context), Parent("00", "01"));
}

// The cases of the W3C's own conformance harness that concern one header.
TEST(TraceContextTest, TraceparentsThatFollowTheStandard) {
  const std::vector<std::pair<std::string, uint8_t>> cases = {
      {Parent("00", "00"), 0},
      {Parent("00", "02"), 2},
      {Parent("00", "03"), 3},
      {Parent("00", "fd"), 1},  // Unknown flags are not passed on.
      {Parent("cc", "01"), 1},  // A version that is not known yet,
      {Parent("cc", "01", "-what-the-future-will-be-like"), 1},
      {Parent("fe", "01", "-"), 1},
      {absl::StrCat(" \t", Parent("00", "01"), "\t "), 1},  // Optional white space.
      {absl::StrCat("00-", "00000000000000000000000000000001-0000000000000001-01"), 1},
  };
  for (const auto& [text, flags] : cases) {
    const TraceContext context = ParseTraceparent(text);
    EXPECT_TRUE(context.valid()) << text;
    EXPECT_EQ(context.flags, flags) << text;
  }
}

TEST(TraceContextTest, TraceparentsThatDoNot) {
  const std::string upper = "00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-01";
  const std::vector<std::string> cases = {
      "",
      "00",
      Parent("ff", "01"),
      Parent("00", "01", "-"),
      Parent("00", "01", ".what"),
      Parent("00", "01", "0"),
      Parent("cc", "01", ".what"),
      Parent("cc", "01", "0"),
      Parent(".0", "01"),
      Parent("0.", "01"),
      Parent("0", "01"),
      Parent("000", "01"),
      Parent("00", ".1"),
      Parent("00", "1."),
      Parent("00", "1"),
      Parent("00", "001"),
      upper,
      absl::StrCat("00-", std::string(32, '0'), "-", kSpan, "-01"),
      absl::StrCat("00-", kTrace, "-", std::string(16, '0'), "-01"),
      absl::StrCat("00-.", std::string(kTrace).substr(1), "-", kSpan, "-01"),
      absl::StrCat("00-", kTrace, "-.", std::string(kSpan).substr(1), "-01"),
      absl::StrCat("00-", kTrace, "0-", kSpan, "-01"),
      absl::StrCat("00-", std::string(kTrace).substr(1), "-", kSpan, "-01"),
      absl::StrCat("00-", kTrace, "-", kSpan, "0-01"),
      absl::StrCat("00_", kTrace, "-", kSpan, "-01"),
      absl::StrCat("00-", kTrace, "_", kSpan, "-01"),
      absl::StrCat("00-", kTrace, "-", kSpan, "_01"),
      absl::StrCat(Parent("00", "01"), ",", Parent("00", "01")),  // Two headers, joined.
  };
  for (const std::string& text : cases) {
    EXPECT_FALSE(ParseTraceparent(text).valid()) << text;
  }
}

TEST(TraceContextTest, WhatAllHavePassesOnIsNotChanged) {
  for (const char* flags : {"00", "01", "02", "03"}) {
    EXPECT_EQ(Formatted(ParseTraceparent(Parent("00", flags))), Parent("00", flags));
  }
  EXPECT_EQ(Formatted(ParseTraceparent(Parent("cc", "ff", "-more"))), Parent("00", "03"));
}

TEST(TraceContextTest, IdsThatPeopleType) {
  EXPECT_EQ(ToHex(*ParseTraceId("4BF92F3577B34DA6A3CE929D0E0E4736")), kTrace);
  for (const char* text :
       {"", "4bf9", "4bf92f3577b34da6a3ce929d0e0e473g", "00000000000000000000000000000000"}) {
    EXPECT_FALSE(ParseTraceId(text).has_value()) << text;
  }
}

std::string Members(size_t count) {
  std::vector<std::string> members;
  for (size_t i = 0; i < count; ++i) {
    members.push_back(absl::StrCat("k", i, "=1"));
  }
  return absl::StrJoin(members, ",");
}

TEST(TracestateTest, ValidOnesMayBePassedOn) {
  for (const std::string& text :
       {std::string(), std::string("foo=1"), std::string("foo=1,bar=2"),
        std::string("foo=1 ,\tbar=2"), std::string("foo=1,,bar=2,"), std::string("1a-2f@foo=bar1"),
        std::string("a_b*/-c=1"), std::string("foo= a b"),
        absl::StrCat(std::string(256, 'z'), "=1"), absl::StrCat("a=", std::string(256, 'z')),
        Members(32)}) {
    EXPECT_EQ(TracestateToPass(text), text);
  }
}

TEST(TracestateTest, OthersMayNot) {
  for (const std::string& text :
       {std::string("foo"), std::string("=1"), std::string("foo="), std::string("foo=1=2"),
        std::string("Foo=1"), std::string("foo =1"), std::string("foo=1,foo=2"),
        std::string("_foo=1"), std::string("foo.bar=1"), std::string("foo=b\xc3\xa4r"),
        std::string("foo=\tb"), absl::StrCat(std::string(257, 'z'), "=1"),
        absl::StrCat("a=", std::string(257, 'z')), Members(33)}) {
    EXPECT_EQ(TracestateToPass(text), "") << text;
  }
}

TEST(TracestateTest, OfALongOneTheMembersAtTheBeginningGoOn) {
  std::vector<std::string> members;
  for (char key = 'a'; key < 'a' + 20; ++key) {
    members.push_back(absl::StrCat(std::string(1, key), "=", std::string(200, 'z')));
  }
  const std::string all = absl::StrJoin(members, ",");
  const absl::string_view passed = TracestateToPass(all);
  members.resize(10);  // 203 characters each, and a comma.
  EXPECT_EQ(passed.size(), absl::StrJoin(members, ",").size());
}

}  // namespace
}  // namespace expertmesh::trace
