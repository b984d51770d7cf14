#include "common/gate/capacity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <vector>

namespace expertmesh::gate {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint32_t kNone = kNoExpert;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

RoutingOptions Options(uint32_t experts, uint32_t k, uint32_t tokens, DropPolicy drop) {
  RoutingOptions options;
  options.num_experts = experts;
  options.top_k = k;
  options.capacity.tokens = tokens;
  options.capacity.drop = drop;
  return options;
}

TEST(CapacityOf, TokensThenFactorThenMinimum) {
  RoutingOptions options = Options(8, 2, 0, DropPolicy::kPosition);
  EXPECT_EQ(CapacityOf(options, 100), 100u) << "unlimited";
  options.capacity.factor = 1.0f;
  EXPECT_EQ(CapacityOf(options, 100), 25u);
  EXPECT_EQ(CapacityOf(options, 101), 26u) << "rounded up";
  EXPECT_EQ(CapacityOf(options, 1), 1u);
  EXPECT_EQ(CapacityOf(options, 0), 0u);
  options.capacity.minimum = 4;
  EXPECT_EQ(CapacityOf(options, 5), 4u);
  EXPECT_EQ(CapacityOf(options, 3), 3u) << "no more than there are";
  EXPECT_EQ(CapacityOf(options, 100), 25u);
  options.capacity.tokens = 2;
  EXPECT_EQ(CapacityOf(options, 100), 2u) << "comes first, the minimum is the factor's";
  options.capacity.tokens = 1000;
  EXPECT_EQ(CapacityOf(options, 100), 100u);
}

TEST(CapacityOf, FactorsAreDecimal) {
  RoutingOptions options = Options(10, 1, 0, DropPolicy::kPosition);
  for (uint32_t percent = 1; percent < 300; ++percent) {
    options.capacity.factor = static_cast<float>(percent) / 100.0f;
    for (const uint32_t tokens : {10u, 100u, 1000u, 12345u}) {
      const uint32_t wanted = (percent * tokens + 999) / 1000;
      EXPECT_EQ(CapacityOf(options, tokens), std::min(wanted, tokens)) << percent << " " << tokens;
    }
  }
}

TEST(CapacityOf, ExpertChoiceDoesNotCountTopK) {
  RoutingOptions options = Options(8, 4, 0, DropPolicy::kPosition);
  options.choice = Choice::kExpertChoice;
  options.capacity.factor = 2.0f;
  EXPECT_EQ(CapacityOf(options, 32), 8u);
}

struct Limited {
  std::vector<uint32_t> ids;
  std::vector<float> weights;
  std::vector<DroppedAssignment> dropped;
  double mass = 0;
};

Limited Limit(const RoutingOptions& options, std::vector<uint32_t> ids, std::vector<float> weights,
              const std::vector<float>& best = {}, const std::vector<float>& scores = {}) {
  Limited limited{std::move(ids), std::move(weights), {}};
  limited.weights.resize(limited.ids.size(), 1.0f);
  GroupSlots group;
  group.first_token = 10;
  group.expert_ids = absl::MakeSpan(limited.ids);
  group.weights = absl::MakeSpan(limited.weights);
  group.best_scores = best;
  group.scores = scores;
  group.choices = scores;
  CapacityScratch scratch;
  LimitCapacity(options, group, &scratch, &limited.dropped, &limited.mass);
  return limited;
}

TEST(LimitCapacity, ByPositionFirstChoicesComeFirst) {
  const Limited limited =
      Limit(Options(3, 2, 2, DropPolicy::kPosition), {0, 1, 1, 0, 0, 2, 0, 1}, {});
  // Expert 0: first choices of tokens 0 and 2; expert 1: first choice of token 1, then token 0.
  EXPECT_THAT(limited.ids, ElementsAre(0, 1, 1, kNone, 0, 2, kNone, kNone));
  EXPECT_THAT(limited.dropped, ElementsAre(DroppedAssignment{11, 0}, DroppedAssignment{13, 0},
                                           DroppedAssignment{13, 1}));
}

TEST(LimitCapacity, BatchPrioritisedServesTheSurestTokens) {
  const Limited limited = Limit(Options(2, 1, 2, DropPolicy::kBatchPrioritised), {0, 0, 0, 0}, {},
                                {0.5f, 0.9f, 0.6f, 0.6f});
  EXPECT_THAT(limited.ids, ElementsAre(kNone, 0, 0, kNone)) << "the earlier one of equals";
  EXPECT_THAT(limited.dropped, ElementsAre(DroppedAssignment{10, 0}, DroppedAssignment{13, 0}));
}

TEST(LimitCapacity, BatchPrioritisedStillPutsFirstChoicesFirst) {
  const Limited limited =
      Limit(Options(2, 2, 1, DropPolicy::kBatchPrioritised), {1, 0, 0, 1}, {}, {0.9f, 0.1f});
  EXPECT_THAT(limited.ids, ElementsAre(1, kNone, 0, kNone));
}

TEST(LimitCapacity, ByScoreWhateverTheSlot) {
  const Limited limited =
      Limit(Options(2, 2, 1, DropPolicy::kScore), {0, 1, 1, 0}, {0.6f, 0.5f, 0.45f, 0.7f});
  EXPECT_THAT(limited.ids, ElementsAre(kNone, 1, kNone, 0));
  EXPECT_THAT(limited.dropped, ElementsAre(DroppedAssignment{10, 0}, DroppedAssignment{11, 1}));
  EXPECT_FLOAT_EQ(limited.mass, 0.6 + 0.45);
}

TEST(LimitCapacity, UnusedSlotsTakeNoRoom) {
  for (const DropPolicy drop :
       {DropPolicy::kPosition, DropPolicy::kScore, DropPolicy::kBatchPrioritised}) {
    const Limited limited = Limit(Options(2, 2, 1, drop), {0, kNone, 1, kNone}, {}, {0.5f, 0.5f});
    EXPECT_THAT(limited.ids, ElementsAre(0, kNone, 1, kNone));
    EXPECT_THAT(limited.dropped, IsEmpty());
  }
}

TEST(LimitCapacity, NextBestTakesTheExpertsScoreAndTellsWhoWasFull) {
  const std::vector<float> scores = {0.7f, 0.2f, 0.1f, 0.6f, 0.1f, 0.3f, 0.5f, 0.4f, 0.1f};
  const Limited limited =
      Limit(Options(3, 1, 1, DropPolicy::kNextBest), {0, 0, 0}, {0.7f, 0.6f, 0.5f}, {}, scores);
  EXPECT_THAT(limited.ids, ElementsAre(0, 2, 1));
  EXPECT_THAT(limited.weights, ElementsAre(0.7f, 0.3f, 0.4f));
  EXPECT_THAT(limited.dropped, ElementsAre(DroppedAssignment{11, 0}, DroppedAssignment{12, 0}));
  EXPECT_FLOAT_EQ(limited.mass, scores[3] + scores[6]) << "of what they wanted";
}

TEST(LimitCapacity, NextBestNeverTakesMaskedExpertsNorOneTwice) {
  const std::vector<float> scores = {0.7f, 0.2f, -kInfinity, 0.6f, 0.4f, -kInfinity};
  const Limited limited = Limit(Options(3, 2, 1, DropPolicy::kNextBest), {0, 1, 0, 1},
                                {0.7f, 0.2f, 0.6f, 0.4f}, {}, scores);
  // Token 1 finds 0 full and takes 1; token 0's second choice is gone then, and so is everything.
  EXPECT_THAT(limited.ids, ElementsAre(0, kNone, 1, kNone));
  EXPECT_THAT(limited.dropped, ElementsAre(DroppedAssignment{10, 1}, DroppedAssignment{11, 0}));
}

// Whatever the policy: capacity holds, nothing is dropped while there is room for it, and every
// assignment is either kept or told.
TEST(LimitCapacity, AssignmentsAreKeptOrDroppedAndNothingElse) {
  std::mt19937 random(3);
  for (const DropPolicy drop :
       {DropPolicy::kPosition, DropPolicy::kBatchPrioritised, DropPolicy::kScore}) {
    for (int round = 0; round < 50; ++round) {
      const uint32_t experts = 2 + random() % 6;
      const uint32_t capacity = 1 + random() % 5;
      const size_t tokens = 1 + random() % 20;
      std::vector<uint32_t> ids;
      std::vector<float> weights;
      std::vector<float> best;
      for (size_t token = 0; token < tokens; ++token) {
        const uint32_t first = random() % experts;
        ids.insert(ids.end(), {first, (first + 1) % experts});
        weights.insert(weights.end(), {static_cast<float>(random() % 8), 0.5f});
        best.push_back(weights[2 * token]);
      }
      const Limited limited = Limit(Options(experts, 2, capacity, drop), ids, weights, best);
      std::vector<uint32_t> wanted(experts, 0);
      std::vector<uint32_t> kept(experts, 0);
      size_t gone = 0;
      for (size_t at = 0; at < ids.size(); ++at) {
        ++wanted[ids[at]];
        if (limited.ids[at] == kNone) {
          EXPECT_EQ(limited.dropped[gone],
                    (DroppedAssignment{10 + static_cast<uint32_t>(at / 2), ids[at]}));
          ++gone;
        } else {
          ++kept[limited.ids[at]];
        }
      }
      EXPECT_EQ(gone, limited.dropped.size());
      for (uint32_t expert = 0; expert < experts; ++expert) {
        const auto room = std::min<uint32_t>(capacity, static_cast<uint32_t>(tokens));
        EXPECT_EQ(kept[expert], std::min(wanted[expert], room));
      }
    }
  }
}

}  // namespace
}  // namespace expertmesh::gate
