#include "client/cpp/command/simulated_mesh.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_split.h"

namespace expertmesh::command {
namespace {

using ::testing::HasSubstr;

TEST(ParseEventsTest, ReadsNodesAndTimes) {
  const auto events = ParseEvents("3@600,7@10m", replay::MeshEvent::Kind::kJoin).value();
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].node, 3u);
  EXPECT_EQ(events[0].at_s, 600);
  EXPECT_EQ(events[1].node, 7u);
  EXPECT_EQ(events[1].at_s, 600);
  EXPECT_EQ(events[1].kind, replay::MeshEvent::Kind::kJoin);
  EXPECT_TRUE(ParseEvents("", replay::MeshEvent::Kind::kFail)->empty());
}

TEST(ParseEventsTest, NamesWhatIsWrong) {
  for (const char* wrong : {"3", "@5", "x@5", "3@", "3@x", "3@-5", "-1@5"}) {
    const auto events = ParseEvents(wrong, replay::MeshEvent::Kind::kFail);
    EXPECT_THAT(events.status().message(), HasSubstr("is no node and time")) << wrong;
  }
}

TEST(ServiceTimesTest, WhatIsGivenReplacesTheDefault) {
  const CommandSpec spec = {
      .name = "x", .summary = "", .argument = "", .options = ServiceTimeOptions()};
  const Options options = ParseOptions(spec, {"--row-us", "0.25"}).value();
  const replay::ServiceTimes times = ServiceTimesOf(options);
  EXPECT_EQ(times.row_us, .25);
  EXPECT_EQ(times.assignment_us, replay::ServiceTimes().assignment_us);
  EXPECT_TRUE(HasServiceTimes(options));
  EXPECT_FALSE(HasServiceTimes(ParseOptions(spec, {}).value()));
}

TEST(ServiceTimesTest, AreWrittenAsTheyAreRead) {
  const CommandSpec spec = {
      .name = "x", .summary = "", .argument = "", .options = ServiceTimeOptions()};
  const std::string text = FormatServiceTimes({.assignment_us = 1.25,
                                               .expert_us = 200,
                                               .batch_us = 3,
                                               .row_us = .5,
                                               .token_us = 1e-3,
                                               .hop_us = 12345});
  const std::vector<std::string> words = absl::StrSplit(text, ' ');
  const replay::ServiceTimes times = ServiceTimesOf(ParseOptions(spec, words).value());
  EXPECT_EQ(times.assignment_us, 1.25);
  EXPECT_EQ(times.expert_us, 200);
  EXPECT_EQ(times.batch_us, 3);
  EXPECT_EQ(times.row_us, .5);
  EXPECT_EQ(times.token_us, 1e-3);
  EXPECT_NEAR(times.hop_us, 12345, 5);
}

}  // namespace
}  // namespace expertmesh::command
