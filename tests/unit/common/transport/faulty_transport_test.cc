#include "tests/support/faulty_transport.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/call_result.h"
#include "tests/support/echo_node.h"
#include "tests/support/in_process_transport.h"
#include "tests/support/recording_observer.h"

namespace expertmesh {
namespace {

// A node behind a faulty transport, one connection to it, and a clock that stands still.
struct Rig {
  explicit Rig(const FaultPlan& plan) : faulty(&network, plan, &clock) {
    node.KeepSinks();
    network.Register("node:1", &node);
    connection = faulty.Connect("node:1", &observer);
    EXPECT_TRUE(observer.AwaitUp());
  }
  ~Rig() {
    connection.reset();
    network.Unregister("node:1");
  }

  FakeClock clock;
  EchoNode node;
  InProcessNetwork network;
  FaultyTransport faulty;
  RecordingObserver observer;
  std::unique_ptr<NodeConnection> connection;
};

std::string Numbered(int i) { return "frame " + std::to_string(i); }

// What arrives of `frames` answers of the node.
std::vector<std::string> Answers(const FaultPlan& plan, int frames, FaultCounts* counts) {
  Rig rig(plan);
  const std::shared_ptr<FrameSink> sink = rig.node.TakeSink();
  for (int i = 0; i < frames; ++i) {
    EXPECT_TRUE(sink->Send(Frame(Numbered(i))).ok());
  }
  const absl::Time give_up = Clock::Real()->Now() + kTooLong;
  do {
    std::this_thread::yield();
    *counts = rig.faulty.counts();
  } while (counts->frames < static_cast<uint64_t>(frames) && Clock::Real()->Now() < give_up);
  // The last fate may not be counted in full yet, but is when the next callback runs.
  const auto arrived = [&rig] {
    const FaultCounts now = rig.faulty.counts();
    return now.frames - now.dropped + now.duplicated;
  };
  while (rig.observer.heard().frame_count != arrived() && Clock::Real()->Now() < give_up) {
    std::this_thread::yield();
  }
  *counts = rig.faulty.counts();
  EXPECT_EQ(counts->frames, static_cast<uint64_t>(frames));
  return rig.observer.heard().frames;
}

TEST(FaultyTransportTest, SameSeedSameFate) {
  const FaultPlan plan{.seed = 42, .drop = 0.2, .duplicate = 0.2, .truncate = 0.2, .flip = 0.2};
  FaultCounts counts;
  const std::vector<std::string> heard = Answers(plan, 200, &counts);
  EXPECT_GT(counts.dropped, 0u);
  EXPECT_GT(counts.duplicated, 0u);
  EXPECT_GT(counts.truncated, 0u);
  EXPECT_GT(counts.flipped, 0u);
  EXPECT_EQ(counts.delayed, 0u);
  EXPECT_EQ(counts.disconnected, 0u);

  FaultCounts again;
  EXPECT_EQ(Answers(plan, 200, &again), heard);
  EXPECT_EQ(again, counts);

  FaultPlan other = plan;
  other.seed = 43;
  EXPECT_NE(Answers(other, 200, &again), heard);
}

TEST(FaultyTransportTest, DropLosesFramesWithoutAWord) {
  FaultCounts counts;
  EXPECT_TRUE(Answers({.drop = 1}, 20, &counts).empty());
  EXPECT_EQ(counts.dropped, 20u);
}

TEST(FaultyTransportTest, DuplicateDeliversTwice) {
  FaultCounts counts;
  EXPECT_THAT(Answers({.duplicate = 1}, 2, &counts),
              testing::ElementsAre("frame 0", "frame 0", "frame 1", "frame 1"));
}

TEST(FaultyTransportTest, TruncateKeepsAShorterBeginning) {
  FaultCounts counts;
  const std::vector<std::string> heard = Answers({.truncate = 1}, 50, &counts);
  ASSERT_EQ(heard.size(), 50u);
  for (int i = 0; i < 50; ++i) {
    const std::string& bytes = heard[static_cast<size_t>(i)];
    EXPECT_LT(bytes.size(), Numbered(i).size());
    EXPECT_EQ(bytes, Numbered(i).substr(0, bytes.size()));
  }
}

TEST(FaultyTransportTest, FlipChangesOneBit) {
  FaultCounts counts;
  const std::vector<std::string> heard = Answers({.flip = 1}, 50, &counts);
  ASSERT_EQ(heard.size(), 50u);
  for (int i = 0; i < 50; ++i) {
    const std::string sent = Numbered(i);
    const std::string& bytes = heard[static_cast<size_t>(i)];
    ASSERT_EQ(bytes.size(), sent.size());
    int bits = 0;
    for (size_t at = 0; at < sent.size(); ++at) {
      bits += std::popcount(static_cast<uint8_t>(sent[at] ^ bytes[at]));
    }
    EXPECT_EQ(bits, 1);
  }
}

TEST(FaultyTransportTest, DelayWaitsForTheClockAndKeepsOrder) {
  Rig rig({.delay = 0.5, .max_delay = absl::Seconds(5)});
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(rig.connection->Send(Frame(Numbered(i))).ok());
  }
  // All behind the first delayed frame wait with it.
  EXPECT_LT(rig.node.frames(), 25);
  EXPECT_GT(rig.faulty.counts().delayed, 5u);
  rig.clock.Advance(absl::Seconds(5));
  ASSERT_TRUE(rig.node.AwaitFrames(50));
  // The echoes are delayed in their turn, each from when it arrives.
  const absl::Time give_up = Clock::Real()->Now() + kTooLong;
  while (rig.observer.heard().frame_count < 50 && Clock::Real()->Now() < give_up) {
    rig.clock.Advance(absl::Seconds(5));
    std::this_thread::yield();
  }
  ASSERT_EQ(rig.observer.heard().frame_count, 50u);
  const std::vector<std::string> heard = rig.observer.heard().frames;
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(heard[static_cast<size_t>(i)], Numbered(i));
  }
}

TEST(FaultyTransportTest, DisconnectCutsAndConnectsAnew) {
  Rig rig({.disconnect = 1});
  for (int cut = 1; cut <= 3; ++cut) {
    ASSERT_TRUE(rig.observer.AwaitUp(cut));
    ASSERT_TRUE(rig.connection->Send(Frame("lost")).ok());
    ASSERT_TRUE(rig.observer.AwaitDisconnects(static_cast<size_t>(cut)));
  }
  ASSERT_TRUE(rig.observer.AwaitUp(4));
  EXPECT_EQ(rig.observer.heard().disconnects.back().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(rig.node.frames(), 0);
  EXPECT_EQ(rig.faulty.counts().disconnected, 3u);
}

TEST(FaultyTransportTest, AnAnswerCanCutToo) {
  Rig rig({.disconnect = 1});
  const std::shared_ptr<FrameSink> sink = rig.node.TakeSink();
  ASSERT_TRUE(sink->Send(Frame("lost")).ok());
  ASSERT_TRUE(rig.observer.AwaitDisconnects(1));
  EXPECT_TRUE(rig.observer.AwaitUp(2));
  EXPECT_TRUE(rig.observer.heard().frames.empty());
}

TEST(FaultyTransportTest, FaultsInFlightDoNotOutliveTheConnection) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Rig rig({.seed = seed,
             .drop = 0.1,
             .delay = 0.3,
             .duplicate = 0.1,
             .truncate = 0.1,
             .flip = 0.1,
             .disconnect = 0.05});
    for (int i = 0; i < 100; ++i) {
      const absl::Status status = rig.connection->Send(Frame(Numbered(i)));
      ASSERT_TRUE(status.ok() || absl::IsUnavailable(status)) << status;
      rig.clock.Advance(absl::Milliseconds(1));
    }
  }  // Destroyed in the middle of it.
}

// How one call ends for its caller.
absl::StatusCode UnloadOn(Rig* rig) {
  CallResult<internal::v1::UnloadExpertsResponse> result;
  rig->connection->UnloadExperts({}, kTooLong, result.done());
  return result.Await().status().code();
}

TEST(FaultyTransportTest, ALostCallDoesNotReachTheNodeAndALostAnswerDoes) {
  Rig lost({.lose_call = 1});
  EXPECT_EQ(UnloadOn(&lost), absl::StatusCode::kUnavailable);
  EXPECT_EQ(lost.node.calls(), 0);
  EXPECT_EQ(lost.faulty.counts().lost_calls, 1u);
  Rig unanswered({.lose_answer = 1});
  EXPECT_EQ(UnloadOn(&unanswered), absl::StatusCode::kUnavailable);
  EXPECT_EQ(unanswered.node.calls(), 1);
  EXPECT_EQ(unanswered.faulty.counts().lost_answers, 1u);
}

TEST(FaultyTransportTest, CallsHaveTheSameFatesForTheSameSeed) {
  std::vector<absl::StatusCode> first;
  for (int round = 0; round < 2; ++round) {
    Rig rig({.seed = 5, .lose_call = 0.3, .lose_answer = 0.3});
    std::vector<absl::StatusCode> codes;
    for (int i = 0; i < 40; ++i) {
      codes.push_back(UnloadOn(&rig));
    }
    first = round == 0 ? codes : first;
    EXPECT_EQ(codes, first);
    EXPECT_NE(std::count(codes.begin(), codes.end(), absl::StatusCode::kOk), 0);
    EXPECT_NE(std::count(codes.begin(), codes.end(), absl::StatusCode::kUnavailable), 0);
  }
}

TEST(FaultyTransportTest, ACallEndsWithAConnectionThatIsCut) {
  Rig rig({.disconnect = 1});
  rig.node.HoldCalls(true);
  CallResult<internal::v1::LoadExpertsResponse> result;
  rig.connection->LoadExperts({}, kTooLong, result.done());
  ASSERT_TRUE(rig.node.AwaitCalls(1));
  ASSERT_TRUE(rig.connection->Send(Frame("cuts")).ok());
  EXPECT_EQ(result.Await().status().code(), absl::StatusCode::kUnavailable);
  rig.node.HoldCalls(false);
}

}  // namespace
}  // namespace expertmesh
