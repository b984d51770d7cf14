#include "router_service/gate/validate_routing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

namespace expertmesh {
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

}  // namespace
}  // namespace expertmesh
