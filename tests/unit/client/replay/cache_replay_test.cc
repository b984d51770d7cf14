#include "client/cpp/replay/cache_replay.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>

#include "common/expert_cache/cache_policy.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/temp_path.h"

namespace expertmesh::replay {
namespace {

using ::testing::ElementsAre;

constexpr uint32_t kExperts = 5;

CacheTrace TraceOf(const std::vector<uint32_t>& experts) {
  CacheTrace trace({{.layer = 0, .num_experts = kExperts, .top_k = 1}});
  for (const uint32_t expert : experts) {
    trace.Add(0, {expert});
  }
  return trace;
}

uint64_t HitsOf(const CacheTrace& trace, uint64_t room, const std::string& policy) {
  const std::vector<uint64_t> bytes(trace.layers().size(), 1);
  return RunCache(trace, bytes, room, policy)->hits;
}

// By trying everything: after each batch the cache may keep any `room` of what it had and used.
uint64_t MostHits(const std::vector<uint32_t>& experts, size_t next, uint32_t held, uint32_t room) {
  if (next == experts.size()) {
    return 0;
  }
  const uint32_t used = 1u << experts[next];
  const uint32_t all = held | used;
  uint64_t best = 0;
  // All subsets.
  for (uint32_t kept = all;; kept = (kept - 1) & all) {
    if (static_cast<uint32_t>(__builtin_popcount(kept)) ==
        std::min<uint32_t>(room, static_cast<uint32_t>(__builtin_popcount(all)))) {
      best = std::max(best, MostHits(experts, next + 1, kept, room));
    }
    if (kept == 0) {
      break;
    }
  }
  return best + ((held & used) != 0 ? 1 : 0);
}

TEST(CacheReplayTest, TheOptimumIsOne) {
  std::mt19937 random(11);
  for (int round = 0; round < 60; ++round) {
    std::vector<uint32_t> experts(10);
    for (uint32_t& expert : experts) {
      expert = random() % kExperts;
    }
    for (const uint32_t room : {1u, 2u, 3u}) {
      EXPECT_EQ(HitsOf(TraceOf(experts), room, kOfflinePolicy), MostHits(experts, 0, 0, room));
    }
  }
}

// Batches of `tokens` tokens with `top_k` experts each, drawn by Zipf's law, layer after layer.
CacheTrace Zipf(size_t layers, uint32_t experts, uint32_t uses_of_batch, size_t batches) {
  std::vector<balance::RecordedLayer> described;
  for (size_t layer = 0; layer < layers; ++layer) {
    described.push_back({static_cast<uint32_t>(layer), experts, 1});
  }
  CacheTrace trace(std::move(described));
  std::mt19937 random(13);
  std::vector<double> weights;
  for (uint32_t rank = 1; rank <= experts; ++rank) {
    weights.push_back(1.0 / rank);
  }
  std::discrete_distribution<uint32_t> draw(weights.begin(), weights.end());
  for (size_t batch = 0; batch < batches; ++batch) {
    std::vector<uint32_t> used;
    while (used.size() < uses_of_batch) {
      // Each layer has another hottest expert.
      const auto expert = static_cast<uint32_t>((draw(random) + batch % layers * 7) % experts);
      if (std::find(used.begin(), used.end(), expert) == used.end()) {
        used.push_back(expert);
      }
    }
    trace.Add(batch % layers, used);
  }
  return trace;
}

TEST(CacheReplayTest, NoPolicyBeatsTheOptimum) {
  const CacheTrace trace = Zipf(3, 32, 4, 3000);
  for (const uint64_t room : {5, 24, 48, 96}) {
    const uint64_t most = HitsOf(trace, room, kOfflinePolicy);
    for (const std::string& policy : expert_cache::CachePolicyNames()) {
      EXPECT_LE(HitsOf(trace, room, policy), most) << policy << " in " << room;
    }
  }
  EXPECT_EQ(HitsOf(trace, 96, "lru"), HitsOf(trace, 96, kOfflinePolicy)) << "where all fit";
}

TEST(CacheReplayTest, FrequencyBeatsLruWhereSomeAreUsedMostOfTheTime) {
  const CacheTrace trace = Zipf(3, 32, 4, 3000);
  EXPECT_GT(HitsOf(trace, 24, "frequency"), HitsOf(trace, 24, "lru") * 11 / 10);
  EXPECT_GE(HitsOf(trace, 24, "predictive") * 100, HitsOf(trace, 24, "frequency") * 99);
}

TEST(CacheReplayTest, OutcomesAddUp) {
  CacheTrace trace(
      {{.layer = 3, .num_experts = 4, .top_k = 2}, {.layer = 7, .num_experts = 4, .top_k = 2}});
  trace.Add(0, {0, 1});
  trace.Add(1, {2});
  trace.Add(0, {1, 2});
  const std::vector<uint64_t> bytes = {10, 100};
  const CacheOutcome outcome = *RunCache(trace, bytes, 1000, "lru");
  EXPECT_EQ(outcome.uses, 5);
  EXPECT_EQ(outcome.hits, 1);
  EXPECT_EQ(outcome.loaded_bytes, 130);
  EXPECT_DOUBLE_EQ(outcome.hit_rate(), 0.2);
  EXPECT_EQ(RunCache(trace, bytes, 1000, "clock").status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(CacheReplayTest, ARecordingIsReadAsItsBatchesUsedExperts) {
  const std::string name = TempPath(".rec");
  balance::RecordedModel model;
  model.layers = {{.layer = 1, .num_experts = 8, .top_k = 2},
                  {.layer = 4, .num_experts = 8, .top_k = 2}};
  {
    auto writer = balance::RoutingRecordWriter::Create(name, model, 1 << 20);
    ASSERT_TRUE(writer.ok()) << writer.status();
    balance::RecordedBatch batch;
    batch.layer = 4;
    batch.tokens = 3;
    batch.experts = {5, 2, 2, balance::kNoExpert, 5, 7};
    ASSERT_TRUE((*writer)->Add(batch).ok());
    batch.layer = 1;
    batch.tokens = 1;
    batch.experts = {0, 3};
    ASSERT_TRUE((*writer)->Add(batch).ok());
  }
  const absl::StatusOr<CacheTrace> trace = CacheTrace::Read(name);
  ASSERT_TRUE(trace.ok()) << trace.status();
  ASSERT_EQ(trace->batches(), 2);
  EXPECT_EQ(trace->tokens(), 4);
  EXPECT_EQ(trace->layer(0), 1);
  EXPECT_THAT(trace->experts(0), ElementsAre(2, 5, 7));
  EXPECT_EQ(trace->layer(1), 0);
  EXPECT_THAT(trace->experts(1), ElementsAre(0, 3));
  std::remove(name.c_str());
}

}  // namespace
}  // namespace expertmesh::replay
