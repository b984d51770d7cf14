#include "client/cpp/command/simulated_mesh.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
}

}  // namespace
}  // namespace expertmesh::command
