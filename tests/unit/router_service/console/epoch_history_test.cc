#include "router_service/console/epoch_history.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace expertmesh::console {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

absl::Time At(double seconds) { return absl::UnixEpoch() + absl::Seconds(seconds); }

// Two nodes that are up, and two layers.
ViewFacts Facts(uint64_t epoch) {
  ViewFacts facts;
  facts.epoch = epoch;
  facts.revision = epoch;
  facts.nodes = {{"a:1", "up"}, {"b:1", "up"}};
  facts.copies = {{0, 7}, {3, 7}};
  facts.biases = {{0, 1}, {3, 1}};
  return facts;
}

ViewFacts WithBias(uint64_t epoch, uint64_t bias) {
  ViewFacts facts = Facts(epoch);
  facts.biases[3] = bias;
  return facts;
}

std::vector<std::vector<std::string>> ChangesOf(const EpochHistory& history) {
  std::vector<std::vector<std::string>> changes;
  for (const EpochChange& change : history.Read()) {
    changes.push_back(change.changes);
  }
  return changes;
}

TEST(EpochHistoryTest, TheFirstViewIsNoChange) {
  EpochHistory history;
  history.Observe(At(0), Facts(1));
  history.Observe(At(5), Facts(1));
  EXPECT_THAT(history.Read(), IsEmpty());
}

TEST(EpochHistoryTest, SaysWhatChangedAndWhen) {
  EpochHistory history;
  history.Observe(At(0), Facts(1));
  ViewFacts lost = Facts(2);
  lost.nodes["b:1"] = "down: connection refused";
  lost.copies = {{0, 8}, {3, 8}};
  lost.missing_experts = 4;
  history.Observe(At(5), lost);
  history.Observe(At(10), Facts(3));
  ViewFacts fewer = Facts(4);
  fewer.nodes.erase("a:1");
  history.Observe(At(20), fewer);
  EXPECT_THAT(ChangesOf(history),
              ElementsAre(ElementsAre("node b:1 is down: connection refused",
                                      "copies in use of layers 0,3", "4 experts without a node"),
                          ElementsAre("node b:1 is up", "copies in use of layers 0,3",
                                      "no expert is without a node any more"),
                          ElementsAre("node a:1 is no longer used")));
  EXPECT_EQ(history.Read()[0].epoch, 2);
  EXPECT_EQ(history.Read()[0].at, At(5));
}

TEST(EpochHistoryTest, AnEpochWithoutAVisibleChangeIsOneAllTheSame) {
  EpochHistory history;
  history.Observe(At(0), Facts(1));
  history.Observe(At(5), Facts(2));
  EXPECT_THAT(ChangesOf(history), ElementsAre(ElementsAre("nothing that this router sees")));
}

TEST(EpochHistoryTest, WhatFollowsAtOnceIsPartOfAChange) {
  EpochHistory history;
  history.Observe(At(0), Facts(1));
  ViewFacts lost = Facts(2);
  lost.nodes["b:1"] = "down";
  lost.missing_experts = 4;
  history.Observe(At(5), lost);
  history.Observe(At(5.5), Facts(3));
  ASSERT_THAT(ChangesOf(history), ElementsAre(ElementsAre("node b:1 is down", "node b:1 is up")));
  EXPECT_EQ(history.Read()[0].epoch, 3);
  EXPECT_EQ(history.Read()[0].at, At(5));
  history.Observe(At(6), WithBias(4, 2));
  EXPECT_THAT(history.Read(), SizeIs(2)) << "a second after it began it is over";
}

TEST(EpochHistoryTest, BalancingDoesNotPushOutWhatHappenedToNodes) {
  EpochHistory history;
  history.Observe(At(0), Facts(1));
  ViewFacts lost = Facts(2);
  lost.nodes["b:1"] = "down";
  history.Observe(At(2), lost);
  uint64_t epoch = 2;
  const int steps = static_cast<int>(EpochHistory::kMost) * 30;
  for (int step = 0; step < steps; ++step) {
    ++epoch;
    ViewFacts steered = WithBias(epoch, epoch);
    steered.nodes["b:1"] = "down";
    history.Observe(At(10 + step * 0.1), steered);
  }
  const std::vector<EpochChange> changes = history.Read();
  EXPECT_THAT(changes, SizeIs(EpochHistory::kMost + 1));
  EXPECT_THAT(changes.front().changes, ElementsAre("node b:1 is down"));
  EXPECT_THAT(changes.back().changes, ElementsAre("bias of layer 3"));
  EXPECT_EQ(changes.back().epoch, epoch);
}

TEST(EpochHistoryTest, ANodeThatGoesWhileTheBiasIsSteeredIsAChangeOfItsOwn) {
  EpochHistory history;
  history.Observe(At(0), Facts(1));
  history.Observe(At(2), WithBias(2, 2));
  ViewFacts lost = WithBias(3, 2);
  lost.nodes["b:1"] = "down";
  history.Observe(At(2.1), lost);
  EXPECT_THAT(ChangesOf(history),
              ElementsAre(ElementsAre("bias of layer 3"), ElementsAre("node b:1 is down")));
}

TEST(EpochHistoryTest, WhatComesTooLateIsLeftOut) {
  EpochHistory history;
  history.Observe(At(0), Facts(5));
  ViewFacts earlier = Facts(4);
  earlier.nodes["b:1"] = "down";
  history.Observe(At(5), earlier);
  EXPECT_THAT(history.Read(), IsEmpty());
}

}  // namespace
}  // namespace expertmesh::console
