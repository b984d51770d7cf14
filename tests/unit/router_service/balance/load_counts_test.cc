// Counting: what batches add, the windows, and the table of all routers.
#include "router_service/balance/load_counts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <thread>
#include <vector>

#include "router_service/balance/load_history.h"
#include "router_service/balance/load_table.h"

namespace expertmesh::balance_control {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

gate::RoutedTokens Routed(const std::vector<std::vector<uint32_t>>& tokens) {
  gate::RoutedTokens routed;
  routed.token_begin = {0};
  for (const std::vector<uint32_t>& experts : tokens) {
    routed.expert_ids.insert(routed.expert_ids.end(), experts.begin(), experts.end());
    routed.token_begin.push_back(static_cast<uint32_t>(routed.expert_ids.size()));
  }
  routed.weights.resize(routed.expert_ids.size());
  return routed;
}

TEST(LayerCounters, CountWhatIsRoutedInSmallAndLargeBatches) {
  LayerCounters counters(4);
  std::vector<uint32_t> scratch;
  gate::RoutedTokens small = Routed({{0, 2}, {2, 3}});
  small.compared = 2;
  small.changed = 1;
  counters.Add(small, &scratch);
  counters.Add(Routed(std::vector<std::vector<uint32_t>>(100, {1, 2})), &scratch);
  counters.AddNodeTime(7);
  const LayerCounts counts = counters.Read();
  EXPECT_EQ(counts.tokens, 102u);
  EXPECT_EQ(counts.compared, 2u);
  EXPECT_EQ(counts.changed, 1u);
  EXPECT_EQ(counts.node_us, 7u);
  EXPECT_THAT(counts.assignments, ElementsAre(1, 100, 102, 1));
}

TEST(LayerCounters, LoseNothingToEachOther) {
  LayerCounters counters(8);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&counters] {
      std::vector<uint32_t> scratch;
      const gate::RoutedTokens few = Routed({{1, 5}});
      const gate::RoutedTokens many = Routed(std::vector<std::vector<uint32_t>>(64, {5, 7}));
      for (int round = 0; round < 500; ++round) {
        counters.Add(few, &scratch);
        counters.Add(many, &scratch);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  const LayerCounts counts = counters.Read();
  EXPECT_EQ(counts.tokens, 4u * 500 * 65);
  EXPECT_THAT(counts.assignments, ElementsAre(0, 2000, 0, 0, 0, 2000 * 65, 0, 2000 * 64));
}

std::shared_ptr<const LoadCounts> Totals(uint64_t tokens) {
  LoadCounts counts;
  counts[1].tokens = tokens;
  counts[1].assignments = {tokens, 2 * tokens};
  return std::make_shared<const LoadCounts>(counts);
}

// One token in each second.
TEST(LoadHistory, WindowsAreWhatWasCountedInThem) {
  LoadHistory history;
  EXPECT_TRUE(history.Last(kShortWindow).counts.empty());
  absl::Time now = absl::UnixEpoch();
  for (uint64_t second = 0; second <= 1000; ++second) {
    history.Add(now + absl::Seconds(second), Totals(second));
    for (const absl::Duration asked : {kShortWindow, kWindow, kLongWindow}) {
      const LoadWindow window = history.Last(asked);
      EXPECT_EQ(window.span, absl::Seconds(second == 0 ? 0 : window.counts.at(1).tokens));
      if (second >= 300) {
        EXPECT_GE(window.span, asked);
        EXPECT_LE(window.span, asked + (asked == kLongWindow ? kWindow : absl::Seconds(1)));
      } else if (second > 0) {
        EXPECT_GE(window.span, std::min(asked, absl::Seconds(second)));
      }
    }
  }
}

SteeredModel Model() {
  SteeredModel model;
  model.outline = "abc";
  model.layers[1].num_experts = 2;
  model.layers[1].checkpoint_bias = {0, 0};
  return model;
}

internal::v1::ReportLoadRequest Report(const std::string& id, uint64_t tokens) {
  internal::v1::ReportLoadRequest report;
  report.set_router_id(id);
  report.set_outline("abc");
  internal::v1::LayerCounts& counts = *report.add_layers();
  counts.set_layer(1);
  counts.set_tokens(tokens);
  counts.add_assignments(tokens);
  counts.add_assignments(0);
  return report;
}

class LoadTableTest : public testing::Test {
 protected:
  uint64_t Tokens() const { return table_.Totals()->at(1).tokens; }

  const SteeredModel model_ = Model();
  LoadTable table_{&model_, "me", absl::Minutes(1)};
  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
};

TEST_F(LoadTableTest, TotalsOfEachRouterCountOnceHoweverOftenTheyCome) {
  table_.SetOwn(*Totals(5), 3, now_);
  ASSERT_TRUE(table_.Report(Report("a", 10), now_).ok());
  ASSERT_TRUE(table_.Report(Report("a", 10), now_).ok());
  ASSERT_TRUE(table_.Report(Report("b", 100), now_).ok());
  EXPECT_EQ(Tokens(), 115u);
  ASSERT_TRUE(table_.Report(Report("a", 20), now_).ok());
  ASSERT_TRUE(table_.Report(Report("a", 15), now_).ok()) << "overtaken by the one before";
  EXPECT_EQ(Tokens(), 125u);
}

TEST_F(LoadTableTest, WhoIsSilentForLongIsNotWaitedFor) {
  table_.SetOwn(*Totals(1), 3, now_);
  internal::v1::ReportLoadRequest report = Report("a", 1);
  report.set_epoch(7);
  ASSERT_TRUE(table_.Report(report, now_).ok());
  EXPECT_TRUE(table_.AllServe(7, now_));
  EXPECT_FALSE(table_.AllServe(8, now_ + absl::Minutes(1)));
  EXPECT_TRUE(table_.AllServe(8, now_ + absl::Seconds(61)));
}

TEST_F(LoadTableTest, MoreRoutersThanAreToldApartLoseNothing) {
  table_.SetOwn(*Totals(1), 3, now_);
  for (size_t router = 0; router < 3 * LoadTable::kMostRouters; ++router) {
    now_ += absl::Seconds(1);
    ASSERT_TRUE(table_.Report(Report(absl::StrCat("r", router), 2), now_).ok());
  }
  EXPECT_EQ(Tokens(), 1 + 6 * LoadTable::kMostRouters);
  EXPECT_LE(table_.Describe(now_).size(), LoadTable::kMostRouters);
}

TEST_F(LoadTableTest, WhatWasSavedCountsOnAfterARestart) {
  table_.SetOwn(*Totals(5), 3, now_);
  ASSERT_TRUE(table_.Report(Report("a", 10), now_).ok());
  internal::v1::SavedState saved;
  for (const internal::v1::ReportLoadRequest& router : table_.Save()) {
    *saved.add_routers() = router;
  }
  LoadTable after(&model_, "me again", absl::Minutes(1));
  ASSERT_TRUE(after.Restore(saved).ok());
  after.SetOwn(*Totals(1), 4, now_);
  ASSERT_TRUE(after.Report(Report("a", 12), now_).ok());  // It goes on.
  EXPECT_EQ(after.Totals()->at(1).tokens, 5u + 1 + 12);
  int gone = 0;
  for (const v1::ReportingRouter& router : after.Describe(now_)) {
    gone += router.gone() ? 1 : 0;
  }
  EXPECT_EQ(gone, 1);
}

TEST_F(LoadTableTest, CountsThatDoNotFitTheModelAreRefused) {
  EXPECT_THAT(table_.Report(Report("me", 1), now_).message(), HasSubstr("router_id is 'me'"));
  EXPECT_THAT(table_.Report(Report("", 1), now_).message(), HasSubstr("router_id is ''"));
  internal::v1::ReportLoadRequest other = Report("a", 1);
  other.mutable_layers(0)->set_layer(7);
  EXPECT_THAT(table_.Report(other, now_).message(), HasSubstr("layer 7, which is not a MoE layer"));
  other = Report("a", 1);
  other.mutable_layers(0)->add_assignments(1);
  EXPECT_THAT(table_.Report(other, now_).message(), HasSubstr("of 3 experts; the layer has 2"));
  EXPECT_TRUE(table_.Totals()->empty());
}

}  // namespace
}  // namespace expertmesh::balance_control
