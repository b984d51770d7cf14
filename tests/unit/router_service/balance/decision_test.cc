#include "router_service/balance/decision.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>

#include "router_service/balance/bias_history.h"
#include "router_service/balance/follower.h"

namespace expertmesh::balance_control {
namespace {

using ::testing::HasSubstr;

SteeredModel Model() {
  SteeredModel model;
  model.outline = "abc";
  RoutingOptions routing;
  routing.num_experts = 3;
  routing.top_k = 1;
  model.layers[1] = MakeSteeredLayer(routing, {.5f, 0, 0});
  model.layers[2] = MakeSteeredLayer(routing, {});
  routing.choice = Choice::kHash;
  model.layers[3] = MakeSteeredLayer(routing, {});
  return model;
}

Decision Steered(const SteeredModel& model) {
  balance::BiasPolicy policy;
  policy.rule = balance::BiasRule::kSign;
  policy.rate = .25f;
  Decision decision = InitialDecision(model, policy);
  decision.term = 7;
  decision.epoch = 70;
  decision.authority_id = "me";
  decision.layers[2].bias = {1, 2, 3};
  balance::PlacementPlan plan;
  plan.nodes = {"n0", "n1"};
  plan.layers = {{1, {{{0, .25f}, {1, .75f}}, {{1, 1}}, {{0, 1}}}}};
  decision.plan = std::make_shared<const balance::PlacementPlan>(plan);
  return decision;
}

TEST(Decision, ComesBackFromItsMessage) {
  const SteeredModel model = Model();
  const Decision decision = Steered(model);
  EXPECT_FALSE(decision.layers.contains(3)) << "a hash layer has no bias";
  const absl::StatusOr<Decision> back = FromProto(model, ToProto(model, decision), "it");
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->term, 7u);
  EXPECT_EQ(back->epoch, 70u);
  EXPECT_EQ(back->authority_id, "me");
  ASSERT_EQ(back->layers.size(), 2u);
  for (const auto& [layer, decided] : decision.layers) {
    EXPECT_EQ(back->layers.at(layer).policy, decided.policy);
    EXPECT_EQ(back->layers.at(layer).bias, decided.bias);
  }
  EXPECT_EQ(*back->plan, *decision.plan);
}

TEST(Decision, WhatDoesNotFitTheModelIsRefusedAndNamed) {
  const SteeredModel model = Model();
  const internal::v1::Decision good = ToProto(model, Steered(model));
  using Spoil = std::function<void(internal::v1::Decision*)>;
  const std::pair<Spoil, const char*> cases[] = {
      {[](auto* d) { d->set_outline("xyz"); }, "it serves another model: its outline is 'xyz'"},
      {[](auto* d) { d->mutable_layers(0)->set_layer(9); }, "layer 9 is not a MoE layer"},
      {[](auto* d) { d->mutable_layers(0)->set_layer(3); }, "layer 3 has no bias to steer"},
      {[](auto* d) { d->mutable_layers(1)->add_bias(1); }, "layer 2 has 4 values; the layer has 3"},
      {[](auto* d) { d->mutable_layers(1)->set_bias(1, std::numeric_limits<float>::quiet_NaN()); },
       "layer 2, expert 1, is nan; use a finite number"},
      {[](auto* d) { d->mutable_layers(0)->mutable_policy()->set_rate(-1); }, "policy: rate is -1"},
      {[](auto* d) { d->mutable_plan()->add_nodes("n1"); }, "'n1' is empty or listed twice"},
      {[](auto* d) { d->mutable_plan()->mutable_layers(0)->set_copy_nodes(0, 2); },
       "has a copy on node 2 of 2"},
      {[](auto* d) { d->mutable_plan()->mutable_layers(0)->set_copy_nodes(1, 0); },
       "not ascending by node"},
      {[](auto* d) { d->mutable_plan()->mutable_layers(0)->set_copy_shares(0, .75f); },
       "shares add up to 1.5"},
      {[](auto* d) {
         d->mutable_plan()->mutable_layers(0)->set_copy_shares(
             0, std::numeric_limits<float>::quiet_NaN());
       },
       "has a share of nan"},
      {[](auto* d) {
         d->mutable_plan()->mutable_layers(0)->set_copies_per_expert(0, 4'000'000'000);
       },
       "lists fewer copies"},
      {[](auto* d) { d->mutable_plan()->mutable_layers(0)->set_copies_per_expert(0, 0); },
       "has 0 copies"},
      {[](auto* d) { d->mutable_plan()->mutable_layers(0)->add_copies_per_expert(1); },
       "is given 4 experts; it has 3"},
      {[](auto* d) { *d->mutable_plan()->add_layers() = d->plan().layers(0); },
       "layer 1 follows layer 1"},
  };
  for (const auto& [spoil, message] : cases) {
    internal::v1::Decision bad = good;
    spoil(&bad);
    const absl::StatusOr<Decision> read = FromProto(model, bad, "it");
    ASSERT_FALSE(read.ok()) << message;
    EXPECT_THAT(read.status().message(), HasSubstr(message));
  }
}

TEST(Decision, ChangesOfAPolicyLeaveTheRest) {
  balance::BiasPolicy policy;
  policy.rate = .5f;
  v1::BalancePolicy change;
  change.set_rule(v1::BALANCE_RULE_PROPORTIONAL);
  change.set_quality_budget(0);
  const balance::BiasPolicy changed = *WithChange(policy, change);
  policy.rule = balance::BiasRule::kProportional;
  policy.quality_budget = 0;
  EXPECT_EQ(changed, policy);
}

TEST(Succession, OfTwoAuthoritiesTheOneWithTheHigherTermIsRight) {
  Decision last;
  last.term = 5;
  last.epoch = 50;
  last.authority_id = "a";
  const auto check = [&](uint64_t term, uint64_t epoch, const std::string& id) {
    internal::v1::Decision next;
    next.set_term(term);
    next.set_epoch(epoch);
    next.set_authority_id(id);
    return CheckSuccession(last, next);
  };
  EXPECT_TRUE(check(5, 50, "a").ok());
  EXPECT_TRUE(check(5, 51, "a").ok());
  EXPECT_TRUE(check(6, 1, "b").ok());
  EXPECT_THAT(check(4, 99, "b").message(), HasSubstr("an authority of term 4 is over"));
  EXPECT_THAT(check(5, 99, "b").message(), HasSubstr("two authorities have term 5: 'a', which is"));
  EXPECT_THAT(check(5, 49, "a").message(), HasSubstr("epoch 49 of term 5 comes after epoch 50"));
}

TEST(BiasHistory, TellsTheBiasOfAnyEpochThatItRemembers) {
  BiasHistory history;
  const auto biases = [](float value) {
    return std::make_shared<const LayerBiases>(LayerBiases{{1, {value}}});
  };
  history.Add(10, biases(1));
  history.Add(12, biases(2));
  history.Add(12, biases(3));
  EXPECT_EQ((*history.At(11, 20))->at(1)[0], 1);
  EXPECT_EQ((*history.At(12, 20))->at(1)[0], 3);
  EXPECT_EQ((*history.At(20, 20))->at(1)[0], 3);
  EXPECT_THAT(history.At(21, 20).status().message(),
              HasSubstr("epoch 21 is not remembered; 10 to 20 are"));
  EXPECT_EQ(history.At(9, 20).status().code(), absl::StatusCode::kNotFound);
  for (uint64_t epoch = 0; epoch < BiasHistory::kMostBiases; ++epoch) {
    history.Add(100 + epoch, biases(4));
  }
  EXPECT_FALSE(history.At(12, 2000).ok()) << "no more than so many are kept";
  EXPECT_TRUE(history.At(100, 2000).ok());
}

}  // namespace
}  // namespace expertmesh::balance_control
