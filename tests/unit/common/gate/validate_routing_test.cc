#include "common/gate/validate_routing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

namespace expertmesh::gate {
namespace {

using ::testing::HasSubstr;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

RoutingOptions Options(uint32_t experts, uint32_t k) {
  RoutingOptions options;
  options.num_experts = experts;
  options.top_k = k;
  return options;
}

std::string Message(const RoutingOptions& options) {
  const absl::Status status = ValidateRouting(options);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return std::string(status.message());
}

TEST(ValidateRouting, NamesOptionValueAndRemedy) {
  EXPECT_THAT(Message(Options(0, 1)), HasSubstr("num_experts is 0"));
  EXPECT_THAT(Message(Options(8, 0)), HasSubstr("top_k is 0"));
  EXPECT_THAT(Message(Options(8, 9)),
              HasSubstr("top_k is 9; it must be from 1 to num_experts (8)"));
  RoutingOptions options = Options(8, 2);
  options.n_group = 3;
  EXPECT_THAT(Message(options), HasSubstr("n_group is 3"));
  options.n_group = 0;
  EXPECT_THAT(Message(options), HasSubstr("n_group is 0"));
  options.n_group = 4;
  options.topk_group = 0;
  EXPECT_THAT(Message(options), HasSubstr("topk_group is 0"));
  options.topk_group = 5;
  EXPECT_THAT(Message(options), HasSubstr("topk_group is 5"));
  options.topk_group = 1;
  options.top_k = 3;
  EXPECT_THAT(Message(options), HasSubstr("leave 2 experts to choose from"));
  options.n_group = 8;
  options.top_k = 1;
  options.group_score = GroupScore::kTopTwoSum;
  EXPECT_THAT(Message(options), HasSubstr("groups of 1"));
  options = Options(8, 2);
  options.n_group = 2;
  for (const float mask : {kNan, kInfinity, 1.0f}) {
    options.masked_choice = mask;
    EXPECT_THAT(Message(options), HasSubstr("masked_choice"));
  }
  options = Options(8, 2);
  for (const float epsilon : {kNan, kInfinity, -1.0f}) {
    options.renormalise_epsilon = epsilon;
    EXPECT_THAT(Message(options), HasSubstr("renormalise_epsilon"));
  }
  options = Options(8, 2);
  options.scale = kNan;
  EXPECT_THAT(Message(options), HasSubstr("scale is nan"));
}

TEST(ValidateRouting, AcceptsExactlyAsManyExpertsAsTheGroupsLeave) {
  RoutingOptions options = Options(8, 4);
  options.n_group = 4;
  options.topk_group = 2;
  EXPECT_TRUE(ValidateRouting(options).ok());
}

TEST(ValidateRouting, RefusesContradictions) {
  RoutingOptions options = Options(8, 2);
  options.choice = Choice::kExpertChoice;
  EXPECT_THAT(Message(options), HasSubstr("Set capacity_tokens or capacity_factor"));
  options.capacity.factor = 1.0f;
  EXPECT_TRUE(ValidateRouting(options).ok());
  options.top_k = 0;
  EXPECT_TRUE(ValidateRouting(options).ok()) << "plays no part";
  options.scope = ScoreScope::kSelected;
  EXPECT_THAT(Message(options), HasSubstr("scope is selected with choice = expert_choice"));
  options.scope = ScoreScope::kAll;
  options.second_expert = SecondExpert::kRandom;
  EXPECT_THAT(Message(options), HasSubstr("second_expert is set with choice = expert_choice"));
  options.second_expert = SecondExpert::kAlways;
  options.n_group = 4;
  EXPECT_THAT(Message(options), HasSubstr("topk_group is 1 of n_group 4"));

  options = Options(8, 2);
  options.choice = Choice::kHash;
  EXPECT_THAT(Message(options), HasSubstr("top_k is 2 with choice = hash; it must be 1"));
  options.choice = Choice::kSparseMixer;
  EXPECT_TRUE(ValidateRouting(options).ok());
  options.second_expert = SecondExpert::kSampled;
  EXPECT_THAT(Message(options), HasSubstr("second_expert is sampled"));
  options = Options(8, 3);
  options.choice = Choice::kSparseMixer;
  EXPECT_THAT(Message(options), HasSubstr("top_k is 3 with choice = sparse_mixer; it must be 2"));
  options = Options(1, 2);
  options.choice = Choice::kSparseMixer;
  EXPECT_THAT(Message(options), HasSubstr("from 1 to num_experts (1)"));

  options = Options(8, 1);
  options.second_expert = SecondExpert::kRandom;
  EXPECT_THAT(Message(options), HasSubstr("second_expert is set but top_k is 1"));
  options = Options(8, 2);
  options.second_expert = SecondExpert::kSampled;
  options.n_group = 2;
  EXPECT_THAT(Message(options), HasSubstr("set n_group and topk_group to 1"));
}

TEST(ValidateRouting, RefusesCapacityThatCannotBeMeant) {
  RoutingOptions options = Options(8, 2);
  options.capacity.minimum = 4;
  EXPECT_THAT(Message(options), HasSubstr("capacity_minimum is 4 but capacity is unlimited"));
  options = Options(8, 2);
  options.capacity.drop = DropPolicy::kNextBest;
  EXPECT_THAT(Message(options), HasSubstr("drop is next_best but capacity is unlimited"));
  options.capacity.factor = 1.0f;
  EXPECT_TRUE(ValidateRouting(options).ok());
  options.renormalise = Renormalise::kSum;
  EXPECT_THAT(Message(options), HasSubstr("set renormalise_after_drop = true"));
  options.renormalise_after_drop = true;
  EXPECT_TRUE(ValidateRouting(options).ok());
  options.scope = ScoreScope::kSelected;
  EXPECT_THAT(Message(options), HasSubstr("no expert is next best"));
}

TEST(ValidateRouting, RefusesNumbersOutOfRange) {
  const auto refused = [](auto change) {
    RoutingOptions options = Options(8, 2);
    change(options);
    return Message(options);
  };
  for (const float bad : {kNan, kInfinity, -1.0f}) {
    EXPECT_THAT(refused([=](auto& o) { o.temperature = bad; }), HasSubstr("temperature is"));
    EXPECT_THAT(refused([=](auto& o) { o.noise_scale = bad; }), HasSubstr("noise_scale is"));
    EXPECT_THAT(refused([=](auto& o) { o.capacity.factor = bad; }), HasSubstr("capacity_factor"));
    EXPECT_THAT(refused([=](auto& o) { o.renormalise_p = bad; }), HasSubstr("renormalise_p is"));
    EXPECT_THAT(refused([=](auto& o) { o.sparse_mixer_epsilon = bad; }),
                HasSubstr("sparse_mixer_epsilon is"));
    EXPECT_THAT(refused([=](auto& o) { o.second_expert_threshold = bad; }),
                HasSubstr("second_expert_threshold is"));
  }
  EXPECT_THAT(refused([](auto& o) { o.temperature = 0.0f; }), HasSubstr("above 0"));
  EXPECT_THAT(refused([](auto& o) {
                o.noise = Noise::kJitter;
                o.noise_scale = 1.5f;
              }),
              HasSubstr("of jitter it must be at most 1"));
}

}  // namespace
}  // namespace expertmesh::gate
