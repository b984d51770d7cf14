// Routing through the whole router: options in force, groups, seeds, ragged answers.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <set>
#include <string>
#include <vector>

#include "common/model/routing_json.h"
#include "tests/support/compare_rows.h"
#include "tests/unit/router_service/router_fixture.h"

namespace expertmesh::router {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr char kExpertChoice[] =
    R"({"choice": "expert_choice", "capacity_factor": 1.5, "renormalise": "none"})";

class RouterRoutingTest : public RouterTest {
 protected:
  // Two nodes with three experts each, and this --routing.
  void Start(const std::string& routing, const FakeCheckpointOptions& checkpoint = {}) {
    RouterOptions options;
    options.layer.routing = routing;
    StartRouter(options, checkpoint);
    first_node_ = &AddNode("a:1", {0, 1, 2});
    AddNode("b:1", {3, 4, 5});
    Connect();
  }

  static v1::ForwardRequest Request(const std::vector<uint32_t>& group_sizes = {},
                                    const std::vector<uint32_t>& token_ids = {}) {
    v1::ForwardRequest request;
    request.set_layer(1);
    request.mutable_group_sizes()->Add(group_sizes.begin(), group_sizes.end());
    request.mutable_token_ids()->Add(token_ids.begin(), token_ids.end());
    return request;
  }

  // Assignments of each expert, by the answer.
  static std::vector<uint32_t> Loads(const Answer& answer) {
    std::vector<uint32_t> loads(6, 0);
    for (const uint32_t expert : answer.response.routing().expert_ids()) {
      ++loads[expert];
    }
    return loads;
  }

  std::string Refusal(const v1::ForwardRequest& request, size_t tokens) {
    const Answer answer = ForwardRequest(request, RandomRows(1, tokens));
    EXPECT_EQ(answer.status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(answer.status.message());
  }

  FakeNode* first_node_ = nullptr;
};

TEST_F(RouterRoutingTest, WithoutCapacityNothingIsRaggedOrDropped) {
  Start("");
  const Answer answer = ForwardRequest(Request({3, 4}), RandomRows(1, 7));
  ExpectRight(1, RandomRows(1, 7), answer);
  EXPECT_EQ(answer.response.routing().experts_per_token(), 2u);
  EXPECT_THAT(answer.response.routing().assignments_per_token(), IsEmpty());
  EXPECT_THAT(answer.response.dropped(), IsEmpty());
}

TEST_F(RouterRoutingTest, CapacityDropsAndTells) {
  Start(R"({"top_k": 1, "capacity_tokens": 2, "renormalise": "none"})");
  const std::vector<float> rows = RandomRows(2, 20);
  const Answer answer = ForwardRequest(Request(), rows);
  ExpectRight(1, rows, answer);
  const v1::Routing& routing = answer.response.routing();
  EXPECT_EQ(routing.experts_per_token(), 0u);
  ASSERT_EQ(routing.assignments_per_token_size(), 20);
  EXPECT_THAT(Loads(answer), Each(testing::Le(2u)));
  // Every token is served or dropped, once; a dropped one becomes 0.
  ASSERT_GE(answer.response.dropped_size(), 8);
  EXPECT_EQ(routing.expert_ids_size() + answer.response.dropped_size(), 20);
  std::set<uint32_t> dropped;
  uint32_t before = 0;
  for (const v1::DroppedAssignment& one : answer.response.dropped()) {
    EXPECT_LE(before, one.token());
    before = one.token();
    dropped.insert(one.token());
    EXPECT_EQ(routing.assignments_per_token(static_cast<int>(one.token())), 0u);
    EXPECT_EQ(answer.output[one.token() * kModel], 0.0f);
  }
  EXPECT_EQ(dropped.size(), static_cast<size_t>(answer.response.dropped_size()));
}

TEST_F(RouterRoutingTest, DroppedAssignmentsAreToldWithoutRoutingAndCounted) {
  Start(R"({"top_k": 1, "capacity_tokens": 1})");
  v1::ForwardRequest request = Request();
  Answer answer;
  absl::Notification done;
  Send(Encode(request, RandomRows(3, 30)), &answer, &done);
  done.WaitForNotification();
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_FALSE(answer.response.has_routing());
  EXPECT_GE(answer.response.dropped_size(), 24);
  double counted = -1;
  for (const auto& family : registry_.Collect()) {
    if (family.name == "expertmesh_router_dropped_assignments_total") {
      counted = family.metric.at(0).counter.value;
    }
  }
  EXPECT_EQ(counted, answer.response.dropped_size());
  // Load counts what was computed.
  uint64_t computed = 0;
  const v1::GetLoadResponse load = router_->controller().GetLoad({});
  for (const uint64_t assignments : load.layers(0).assignments()) {
    EXPECT_LE(assignments, 1u);
    computed += assignments;
  }
  EXPECT_EQ(computed, 30u - static_cast<uint64_t>(answer.response.dropped_size()));
}

TEST_F(RouterRoutingTest, CapacityIsOfAGroup) {
  Start(R"({"top_k": 1, "capacity_tokens": 1})");
  const std::vector<float> row = RandomRows(4, 1);
  std::vector<float> rows;
  for (int i = 0; i < 6; ++i) {  // Six times the same token: all want one expert.
    rows.insert(rows.end(), row.begin(), row.end());
  }
  const auto kept = [&](const std::vector<uint32_t>& sizes) {
    const Answer answer = ForwardRequest(Request(sizes), rows);
    EXPECT_TRUE(answer.status.ok()) << answer.status;
    const auto& counts = answer.response.routing().assignments_per_token();
    return std::vector<uint32_t>(counts.begin(), counts.end());
  };
  EXPECT_THAT(kept({}), ElementsAre(1, 0, 0, 0, 0, 0));
  EXPECT_THAT(kept({2, 4}), ElementsAre(1, 0, 1, 0, 0, 0));
  EXPECT_THAT(kept({1, 0, 2, 3}), ElementsAre(1, 1, 0, 1, 0, 0));
}

TEST_F(RouterRoutingTest, ExpertChoiceIsRaggedAndBalanced) {
  Start(kExpertChoice);
  const std::vector<float> rows = RandomRows(5, 24);
  const Answer answer = ForwardRequest(Request({12, 12}), rows);
  ExpectRight(1, rows, answer);
  EXPECT_THAT(Loads(answer), Each(6u));  // ceil(1.5 * 12 / 6) of each group.
  EXPECT_EQ(answer.response.routing().assignments_per_token_size(), 24);
  EXPECT_THAT(answer.response.dropped(), IsEmpty());
  const Answer none = ForwardRequest(Request(), {});
  EXPECT_EQ(none.response.routing().experts_per_token(), 0u);
}

TEST_F(RouterRoutingTest, HashGoesByTokenId) {
  Start(R"({"choice": "hash", "top_k": 1})");
  const std::vector<float> rows = RandomRows(6, 4);
  const Answer answer = ForwardRequest(Request({}, {5, 6, 601, 2}), rows);
  ExpectRight(1, rows, answer);
  EXPECT_THAT(answer.response.routing().expert_ids(), ElementsAre(5, 0, 1, 2));
  EXPECT_THAT(answer.response.routing().expert_weights(), Each(1.0f));
  EXPECT_THAT(Refusal(Request(), 4), HasSubstr("token_ids is empty"));
}

TEST_F(RouterRoutingTest, RequestsThatDoNotFitAreRefusedByName) {
  Start("");
  EXPECT_THAT(Refusal(Request({1, 2}), 4), HasSubstr("group_sizes add up to 3"));
  EXPECT_THAT(Refusal(Request({0xffffffffu, 5}), 4), HasSubstr("group_sizes add up to 4294967300"));
  EXPECT_THAT(Refusal(Request({}, {1, 2, 3}), 4), HasSubstr("token_ids has 3 entries"));
}

TEST_F(RouterRoutingTest, SeedsDecideAndNothingElse) {
  Start(R"({"noise": "gumbel", "noise_scale": 3, "seed": 11})");
  const std::vector<float> rows = RandomRows(7, 30);
  v1::ForwardRequest request = Request();
  const Answer own = ForwardRequest(request, rows);
  request.set_routing_seed(11);
  EXPECT_EQ(ForwardRequest(request, rows).response.routing().SerializeAsString(),
            own.response.routing().SerializeAsString());
  request.set_routing_seed(0);
  const Answer other = ForwardRequest(request, rows);
  ExpectRight(1, rows, other);
  EXPECT_NE(other.response.routing().SerializeAsString(),
            own.response.routing().SerializeAsString());
}

// Alone and behind others in one batch: the same bits, whatever routing looks at.
TEST_F(RouterRoutingTest, ARequestDoesNotDependOnItsBatch) {
  for (const char* routing :
       {R"({"top_k": 1, "capacity_factor": 1.0})", kExpertChoice,
        R"({"capacity_factor": 0.75, "drop": "score", "renormalise_after_drop": true})",
        R"({"capacity_tokens": 3, "drop": "next_best", "renormalise_after_drop": true})",
        R"({"noise": "normal", "second_expert": "random"})", R"({"noise": "jitter"})",
        R"({"noise": "gumbel", "capacity_factor": 0.5, "drop": "batch_prioritised"})"}) {
    SCOPED_TRACE(routing);
    addresses_.clear();
    Start(routing);
    v1::ForwardRequest request = Request({5, 6});
    request.set_routing_seed(3);
    request.set_return_routing(true);
    const std::vector<float> rows = RandomRows(8, 11);
    const Answer alone = ForwardRequest(request, rows);
    ASSERT_TRUE(alone.status.ok()) << alone.status;

    first_node_->Hold();
    std::vector<Answer> answers(6);
    std::deque<absl::Notification> done(6);
    for (uint32_t i = 0; i < 6; ++i) {
      v1::ForwardRequest mate = Request();
      mate.set_routing_seed(i);
      Send(i == 4 ? Encode(request, rows) : Encode(mate, RandomRows(50 + i, 9 + i)), &answers[i],
           &done[i]);
      if (i == 0) {
        first_node_->AwaitHeld(1);  // The others wait and leave together.
      }
    }
    first_node_->Release();
    for (absl::Notification& one : done) {
      one.WaitForNotification();
    }
    const Answer& among = answers[4];
    EXPECT_EQ(among.response.timing().batch_tokens(), 10u + 11 + 12 + 11 + 14);
    EXPECT_EQ(among.response.routing().SerializeAsString(),
              alone.response.routing().SerializeAsString());
    ASSERT_EQ(among.response.dropped_size(), alone.response.dropped_size());
    for (int i = 0; i < alone.response.dropped_size(); ++i) {
      EXPECT_EQ(among.response.dropped(i).SerializeAsString(),
                alone.response.dropped(i).SerializeAsString());
    }
    EXPECT_TRUE(SameBits(among.output, alone.output, kModel));
    router_.reset();
    for (const std::string& address : addresses_) {
      network_.Unregister(address);
    }
    nodes_.clear();
  }
}

TEST_F(RouterRoutingTest, TokensWithoutExpertsGetTheSharedOnesOnly) {
  FakeCheckpointOptions checkpoint;
  checkpoint.shared_expert = true;
  Start(R"({"top_k": 1, "capacity_tokens": 1})", checkpoint);
  const std::vector<float> rows = RandomRows(9, 20);
  const Answer answer = ForwardRequest(Request(), rows);
  ExpectRight(1, rows, answer, true);
  ASSERT_GT(answer.response.dropped_size(), 0);
  const uint32_t token = answer.response.dropped(0).token();
  std::vector<float> expected;
  for (size_t i = token * kModel; i < (token + 1) * kModel; ++i) {
    expected.push_back(FakeShared(rows[i]));
  }
  EXPECT_TRUE(SameRows(absl::MakeConstSpan(answer.output).subspan(token * kModel, kModel), expected,
                       kModel));
}

TEST_F(RouterRoutingTest, PassThroughAddsWhatTheWeightsLeave) {
  Start(R"({"top_k": 1, "score": "sigmoid", "renormalise": "none", "capacity_tokens": 2,
            "pass_through": "complement"})");
  const std::vector<float> rows = RandomRows(10, 12);
  const Answer answer = ForwardRequest(Request(), rows);
  const v1::Routing& routing = answer.response.routing();
  std::vector<float> expected = Expected(1, rows, routing);
  int at = 0;
  for (size_t token = 0; token < 12; ++token) {
    const bool served = routing.assignments_per_token(static_cast<int>(token)) == 1;
    const float left = served ? 1.0f - routing.expert_weights(at++) : 1.0f;
    for (size_t i = token * kModel; i < (token + 1) * kModel; ++i) {
      expected[i] += left * rows[i];
    }
  }
  EXPECT_TRUE(RowsNear(answer.output, expected, kModel, 1e-5));
  EXPECT_GT(answer.response.dropped_size(), 0);
}

TEST_F(RouterRoutingTest, SharedExpertsAreMultipliedByTheirGate) {
  FakeCheckpointOptions checkpoint;
  checkpoint.shared_expert = true;
  checkpoint.shared_gate = true;
  Start("", checkpoint);
  const std::vector<float> rows = RandomRows(11, 5);
  const Answer answer = ForwardRequest(Request(), rows);
  const std::vector<float> routed = Expected(1, rows, answer.response.routing());
  const FakeCheckpoint model(checkpoint);
  const auto* weight = reinterpret_cast<const float*>(model.Gate(1)->shared_gate.data);
  std::vector<double> expected;
  std::vector<double> bounds;
  for (size_t token = 0; token < 5; ++token) {
    double product = 0;
    for (size_t i = 0; i < kModel; ++i) {
      product += static_cast<double>(weight[i]) * rows[token * kModel + i];
    }
    for (size_t i = token * kModel; i < (token + 1) * kModel; ++i) {
      const double shared = FakeShared(rows[i]) / (1.0 + std::exp(-product));
      expected.push_back(routed[i] + shared);
      bounds.push_back(1e-5 * (1.0 + std::abs(shared)));
    }
  }
  EXPECT_TRUE(RowsNear(answer.output, expected, kModel, [&](size_t i) { return bounds[i]; }));
}

// The backend of these tests computes in float32: so there is nothing to round to, whatever type
// the checkpoint has.
TEST_F(RouterRoutingTest, RoundsToWhatItComputesInAndNotToTheCheckpoint) {
  FakeCheckpointOptions checkpoint;
  checkpoint.shared_expert = true;
  checkpoint.shared_gate = true;
  v1::ForwardRequest request = Request();
  request.set_return_routing(true);
  const std::vector<float> rows = RandomRows(12, 20);
  std::vector<std::string> answers;
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBF16, Dtype::kF16}) {
    checkpoint.dtype = dtype;
    for (const bool rounded : {false, true}) {
      checkpoint.rounded_routing = rounded;
      addresses_.clear();
      Start("", checkpoint);
      const Answer answer = ForwardRequest(request, rows);
      ASSERT_TRUE(answer.status.ok()) << answer.status;
      answers.push_back(answer.response.routing().SerializeAsString() +
                        std::string(reinterpret_cast<const char*>(answer.output.data()),
                                    answer.output.size() * sizeof(float)));
      router_.reset();
      for (const std::string& address : addresses_) {
        network_.Unregister(address);
      }
      nodes_.clear();
    }
  }
  for (const std::string& answer : answers) {
    EXPECT_TRUE(answer == answers[0]) << &answer - answers.data();
  }
}

TEST_F(RouterRoutingTest, SharedExpertsArePlainWhateverTheRoutedOnesAre) {
  FakeCheckpointOptions checkpoint;
  checkpoint.shared_expert = true;
  checkpoint.activation = Activation::kClampedSwiglu;
  checkpoint.expert_bias = true;
  StartRouter({}, checkpoint);
  ExpertOptions plain;
  plain.d_model = kModel;
  plain.intermediate_size = checkpoint.intermediate_size;
  EXPECT_EQ(backend_->packed_as(), plain);
}

TEST_F(RouterRoutingTest, DescribeModelShowsTheOptionsInForce) {
  Start(R"({"top_k": 1, "capacity_factor": 1.25})");
  const v1::DescribeModelResponse model = router_->DescribeModel();
  ASSERT_EQ(model.layers_size(), 2);
  EXPECT_EQ(model.layers(0).experts_per_token(), 1u);
  RoutingOptions wanted = FakeCheckpoint().model().layers[0].routing;
  wanted.top_k = 1;
  wanted.capacity.factor = 1.25f;
  EXPECT_EQ(model.layers(0).routing(), RoutingJson(wanted));
}

TEST_F(RouterRoutingTest, RoutingThatCannotWorkRefusesTheStart) {
  const auto refusal = [this](const std::string& routing) {
    RouterOptions options;
    options.layer.routing = routing;
    const auto router = Router::Create(options, std::make_shared<FakeCheckpoint>(), MakeBackend(),
                                       &network_, &clock_, &registry_);
    EXPECT_EQ(router.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(router.status().message());
  };
  EXPECT_THAT(refusal("{"), HasSubstr("--routing cannot be used for layer 1: "));
  EXPECT_THAT(refusal(R"({"topk": 1})"), HasSubstr("topk"));
  EXPECT_THAT(refusal(R"({"top_k": 7})"), HasSubstr("top_k is 7"));
  EXPECT_THAT(refusal(R"({"choice": "expert_choice"})"), HasSubstr("Set capacity_tokens"));
  EXPECT_THAT(refusal(R"({"noise": "learned_normal"})"),
              HasSubstr("layer 1: the gate's noise weight is missing"));
}

}  // namespace
}  // namespace expertmesh::router
