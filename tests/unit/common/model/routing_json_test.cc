#include "common/model/routing_json.h"

#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace expertmesh {
namespace {

using ::testing::HasSubstr;

// Every field differs from its default.
RoutingOptions Unusual() {
  RoutingOptions options;
  options.top_k = 3;
  options.logit_dtype = LogitDtype::kModel;
  options.temperature = 0.1f;
  options.noise = Noise::kLearnedNormal;
  options.noise_scale = 0.01f;
  options.seed = std::numeric_limits<uint64_t>::max();
  options.score = ScoreFunction::kSqrtSoftplus;
  options.scope = ScoreScope::kSelected;
  options.score_dtype = ScoreDtype::kModel;
  options.n_group = 4;
  options.topk_group = 2;
  options.group_score = GroupScore::kTopTwoSum;
  options.masked_choice = -std::numeric_limits<float>::infinity();
  options.choice = Choice::kExpertChoice;
  options.sparse_mixer_epsilon = 0.02f;
  options.sorted_selection = false;
  options.second_expert = SecondExpert::kRandom;
  options.second_expert_threshold = 0.2f;
  options.renormalise = Renormalise::kLp;
  options.renormalise_epsilon = 1e-20f;
  options.renormalise_p = 2.0f;
  options.renormalise_after_drop = true;
  options.capacity = {7, 1.25f, 4, DropPolicy::kNextBest};
  options.scale = 2.5f;
  options.weight_dtype = WeightDtype::kModel;
  options.pass_through = PassThrough::kComplement;
  return options;
}

TEST(RoutingJson, WhatIsWrittenReadsBackTheSame) {
  const auto read = WithRoutingJson(RoutingOptions{}, RoutingJson(Unusual()));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, Unusual());
}

TEST(RoutingJson, WhatIsNotNamedStays) {
  const auto read = WithRoutingJson(Unusual(), R"({"top_k": 1, "capacity_factor": 2})");
  ASSERT_TRUE(read.ok()) << read.status();
  RoutingOptions expected = Unusual();
  expected.top_k = 1;
  expected.capacity.factor = 2.0f;
  EXPECT_EQ(*read, expected);
  EXPECT_EQ(*WithRoutingJson(Unusual(), "{}"), Unusual());
}

TEST(RoutingJson, ErrorsNameTheOptionAndWhatItMustBe) {
  const auto error = [](const char* text) {
    const auto read = WithRoutingJson(RoutingOptions{}, text);
    EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument) << text;
    return std::string(read.status().message());
  };
  EXPECT_THAT(error("[]"), HasSubstr("one JSON object"));
  EXPECT_THAT(error("{\"top_k\""), HasSubstr("one JSON object"));
  EXPECT_THAT(error(R"({"topk": 1})"), HasSubstr("unknown routing option topk; known: top_k"));
  EXPECT_THAT(error(R"({"score": "soft"})"), HasSubstr("score = \"soft\" must be one of"));
  EXPECT_THAT(error(R"({"score": "soft"})"), HasSubstr("\"sqrt_softplus\""));
  EXPECT_THAT(error(R"({"top_k": -1})"), HasSubstr("top_k = -1 must be a whole number"));
  EXPECT_THAT(error(R"({"top_k": 4294967296})"), HasSubstr("must be a whole number"));
  EXPECT_THAT(error(R"({"scale": "2"})"), HasSubstr("scale = \"2\" must be a finite number"));
  EXPECT_THAT(error(R"({"scale": 1e300})"), HasSubstr("must be a finite number"));
  EXPECT_THAT(error(R"({"sorted_selection": 1})"), HasSubstr("true or false"));
  EXPECT_THAT(error(R"({"num_experts": 4})"), HasSubstr("cannot be changed"));
  EXPECT_THAT(error(R"({"apply": "input"})"), HasSubstr("cannot be changed"));
}

}  // namespace
}  // namespace expertmesh
