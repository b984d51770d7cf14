// Pieces are checked with code that protoc made.
#include "common/otlp/span_cut.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/trace/otlp.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace expertmesh::otlp {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// As protoc's code writes it: lengths in as few bytes as they need.
std::string SpanBytes(const std::string& name) {
  internal::otlp::ScopeSpans spans;
  spans.add_spans()->set_name(name);
  return spans.SerializeAsString();
}

class SpanCutTest : public testing::Test {
 protected:
  LeftOut Cut(absl::string_view spans, uint64_t most_spans, uint64_t most_bytes) {
    names_.clear();
    bytes_ = 0;
    return CutSpans(spans, most_spans, most_bytes, [&](absl::string_view bytes, uint32_t count) {
      EXPECT_LE(count, most_spans);
      EXPECT_LE(bytes.size(), most_bytes);
      bytes_ += bytes.size();
      internal::otlp::ScopeSpans parsed;
      EXPECT_TRUE(parsed.ParseFromString(std::string(bytes)));
      EXPECT_EQ(static_cast<uint32_t>(parsed.spans_size()), count);
      std::string names;
      for (const auto& span : parsed.spans()) {
        absl::StrAppend(&names, span.name().substr(0, 1));
      }
      names_.push_back(names);
    });
  }

  std::vector<std::string> names_;
  size_t bytes_ = 0;
};

TEST_F(SpanCutTest, WhatFitsStaysWhole) {
  const std::string spans = SpanBytes("a") + SpanBytes(std::string(300, 'b')) + SpanBytes("c");
  const LeftOut left_out = Cut(spans, 3, spans.size());
  EXPECT_THAT(names_, ElementsAre("abc"));
  EXPECT_EQ(bytes_, spans.size());
  EXPECT_FALSE(left_out.malformed);
  EXPECT_EQ(left_out.too_large, 0u);
  Cut("", 3, 100);
  EXPECT_THAT(names_, IsEmpty());
}

TEST_F(SpanCutTest, CutsAtTheNumberAndAtTheBytes) {
  const std::string one = SpanBytes("a");
  Cut(one + one + one + one + one, 2, 1000);
  EXPECT_THAT(names_, ElementsAre("aa", "aa", "a"));
  Cut(one + one + one + one + one, 100, 2 * one.size() + 1);
  EXPECT_THAT(names_, ElementsAre("aa", "aa", "a"));
  Cut(one + one, 100, one.size());
  EXPECT_THAT(names_, ElementsAre("a", "a"));
}

TEST_F(SpanCutTest, OnlyTheSpanThatIsTooLargeIsLeftOut) {
  const std::string large = SpanBytes(std::string(1000, 'x'));
  const LeftOut left_out =
      Cut(SpanBytes("a") + large + SpanBytes("b") + large + large + SpanBytes("c"), 100, 500);
  EXPECT_THAT(names_, ElementsAre("a", "b", "c"));
  EXPECT_EQ(left_out.too_large, 3u);
  EXPECT_FALSE(left_out.malformed);
  EXPECT_EQ(Cut(SpanBytes("a"), 100, 0).too_large, 1u);
}

TEST_F(SpanCutTest, WhatIsNoSpanEndsIt) {
  const std::string good = SpanBytes("a") + SpanBytes("b");
  std::vector<std::string> bad = {"x",
                                  "\x12",
                                  "\x12\x80",
                                  std::string("\x12\x05"
                                              "abc"),
                                  "\x12\xff\xff\xff\xff\x0f",
                                  "\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff"};
  const std::string last = SpanBytes("last");
  bad.push_back(last.substr(0, last.size() - 1));
  for (const std::string& tail : bad) {
    EXPECT_TRUE(Cut(good + tail, 100, 1000).malformed);
    EXPECT_THAT(names_, ElementsAre("ab"));
    EXPECT_TRUE(Cut(tail, 100, 1000).malformed);
    EXPECT_THAT(names_, IsEmpty());
  }
}

}  // namespace
}  // namespace expertmesh::otlp
