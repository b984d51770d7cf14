#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "client/cpp/reference/reference_moe.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/synthetic.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/compare_rows.h"
#include "tests/unit/client/tiny_checkpoint.h"

namespace expertmesh::reference {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct Result {
  ReferenceRoutes routes;
  std::vector<float> output;
};

// Routing and output by the checkpoint's own options.
absl::StatusOr<Result> ReferenceForward(const checkpoint::MoeCheckpoint& checkpoint, uint32_t layer,
                                        const std::vector<float>& hidden, size_t tokens,
                                        const ReferenceOptions& options = {}) {
  const MoeLayerDescription* const description = checkpoint.model().FindLayer(layer);
  const RoutingOptions routing = description == nullptr ? RoutingOptions() : description->routing;
  ReferenceInput input;
  input.hidden = hidden;
  input.tokens = tokens;
  Result result;
  ASSIGN_OR_RETURN(result.routes, RouteWithReference(checkpoint, layer, routing, input, options));
  ASSIGN_OR_RETURN(result.output, ComputeWithReference(checkpoint, layer, routing, input,
                                                       ExpertsOf(result.routes.tokens), options));
  return result;
}

double Silu(double x) { return x / (1 + std::exp(-x)); }

TEST(ReferenceForward, HandComputed) {
  const TinyCheckpoint checkpoint;
  // Token 0 goes to expert 0 (logits 2, 1), token 1 to expert 1 (logits -1, 3).
  const std::vector<float> hidden = {2, 1, -1, 3};
  const auto output = ReferenceForward(checkpoint, 1, hidden, 2);
  ASSERT_TRUE(output.ok()) << output.status();
  const std::vector<ReferenceRouting>& routed = output->routes.tokens;
  EXPECT_THAT(routed[0].expert_ids, ElementsAre(0));
  EXPECT_THAT(routed[1].expert_ids, ElementsAre(1));
  const double p0 = 1 / (1 + std::exp(-1.0));
  const double p1 = 1 / (1 + std::exp(-4.0));
  EXPECT_NEAR(routed[0].weights[0], p0, 1e-6);
  EXPECT_NEAR(routed[1].weights[0], p1, 1e-6);
  const double inner0 = Silu(2) * 1;   // silu(x0) * x1
  const double inner1 = Silu(3) * -1;  // silu(x1) * x0
  const double shared0 = Silu(3) * 1;  // silu(x0 + x1) * (x0 - x1)
  const double shared1 = Silu(2) * -4;
  EXPECT_NEAR(output->output[0], p0 * inner0 + shared0, 1e-5);
  EXPECT_NEAR(output->output[1], p0 * inner0 * 2 + shared0, 1e-5);
  EXPECT_NEAR(output->output[2], p1 * inner1 * 3 + shared1, 1e-5);
  EXPECT_NEAR(output->output[3], p1 * inner1 * -1 + shared1, 1e-5);
  EXPECT_EQ(output->routes.ties(), 0u);
  EXPECT_NEAR(routed[0].margin, 2 * p0 - 1, 1e-6);
}

TEST(ReferenceForward, WeightOnTheInput) {
  TinyCheckpoint checkpoint;
  checkpoint.layer().routing.apply = ApplyWeight::kInput;
  checkpoint.layer().shared_intermediate_size = 0;
  const std::vector<float> hidden = {2, 1};
  const auto output = ReferenceForward(checkpoint, 1, hidden, 1);
  ASSERT_TRUE(output.ok());
  const double p = 1 / (1 + std::exp(-1.0));
  EXPECT_NEAR(output->output[0], Silu(2 * p) * p, 1e-5);
}

TEST(ReferenceForward, LogitBiasIsPartOfTheLogits) {
  TinyCheckpoint checkpoint;
  checkpoint.layer().routing.logit_bias = true;
  const auto output = ReferenceForward(checkpoint, 1, {2, 1}, 1);  // Logits 2 and 1 + 5.
  ASSERT_TRUE(output.ok()) << output.status();
  EXPECT_THAT(output->routes.tokens[0].expert_ids, ElementsAre(1));
  EXPECT_NEAR(output->routes.tokens[0].weights[0], 1 / (1 + std::exp(-4.0)), 1e-6);
}

TEST(ReferenceForward, SharedGate) {
  TinyCheckpoint checkpoint;
  const std::vector<float> hidden = {2, 1};
  const auto plain = ReferenceForward(checkpoint, 1, hidden, 1);
  checkpoint.layer().shared_gate = true;
  const auto gated = ReferenceForward(checkpoint, 1, hidden, 1);
  ASSERT_TRUE(plain.ok() && gated.ok());
  const double shared = Silu(3) * 1;
  // The shared gate says sigmoid(.5 * 2 - 1) = .5.
  EXPECT_NEAR(gated->output[0], plain->output[0] - 0.5 * shared, 1e-5);
}

// 2.046875 is a number of bfloat16, sigmoid(0.0234375) = 0.50586 is none.
TEST(ReferenceForward, RoundsToWhatActivationsAre) {
  TinyCheckpoint checkpoint;
  checkpoint.layer().routing.logit_dtype = LogitDtype::kModel;
  checkpoint.layer().shared_gate = true;
  const std::vector<float> hidden = {2.046875f, 1};
  const auto exact = ReferenceForward(checkpoint, 1, hidden, 1);
  const auto rounded =
      ReferenceForward(checkpoint, 1, hidden, 1, {.activation_dtype = Dtype::kBF16});
  ASSERT_TRUE(exact.ok() && rounded.ok());
  const double weight = 1 / (1 + std::exp(-1.046875));
  EXPECT_NEAR(exact->routes.tokens[0].weights[0], weight, 1e-6);
  EXPECT_EQ(rounded->routes.tokens[0].weights[0], exact->routes.tokens[0].weights[0]);
  const double routed = Silu(hidden[0]) * weight;
  const double shared = Silu(hidden[0] + 1) * (hidden[0] - 1);
  EXPECT_NEAR(exact->output[0], routed + shared / (1 + std::exp(-0.0234375)), 1e-5);
  EXPECT_NEAR(rounded->output[0], routed + shared * 0.50390625, 1e-5);
}

TEST(ReferenceForward, ComplementPassesBy) {
  TinyCheckpoint checkpoint;
  const std::vector<float> hidden = {2, 1};
  const auto plain = ReferenceForward(checkpoint, 1, hidden, 1);
  checkpoint.layer().routing.pass_through = PassThrough::kComplement;
  const auto passed = ReferenceForward(checkpoint, 1, hidden, 1);
  ASSERT_TRUE(plain.ok() && passed.ok());
  const double left = 1 - plain->routes.tokens[0].weights[0];
  EXPECT_NEAR(passed->output[0], plain->output[0] + left * 2, 1e-5);
  EXPECT_NEAR(passed->output[1], plain->output[1] + left * 1, 1e-5);
}

TEST(ReferenceForward, TokensCompeteWithinTheirGroup) {
  TinyCheckpoint checkpoint;
  RoutingOptions routing = checkpoint.layer().routing;
  routing.capacity.tokens = 1;
  const std::vector<float> hidden = {2, 1, 3, 1, 1, 4};  // To expert 0, 0 and 1.
  const std::vector<uint32_t> groups = {2, 1};
  ReferenceInput input;
  input.hidden = hidden;
  input.tokens = 3;
  input.group_sizes = groups;
  const auto routes = RouteWithReference(checkpoint, 1, routing, input);
  ASSERT_TRUE(routes.ok()) << routes.status();
  EXPECT_THAT(routes->tokens[0].expert_ids, ElementsAre(0));
  EXPECT_THAT(routes->tokens[1].expert_ids, testing::IsEmpty());
  EXPECT_THAT(routes->tokens[2].expert_ids, ElementsAre(1));
  const auto output =
      ComputeWithReference(checkpoint, 1, routing, input, ExpertsOf(routes->tokens));
  ASSERT_TRUE(output.ok()) << output.status();
  // Token 1 has the shared expert alone: silu(4) * 2.
  EXPECT_NEAR((*output)[2], Silu(4) * 2, 1e-5);
  input.group_sizes = absl::MakeConstSpan(groups).first(1);
  EXPECT_EQ(RouteWithReference(checkpoint, 1, routing, input).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ReferenceForward, RefusesRandomRouting) {
  TinyCheckpoint checkpoint;
  checkpoint.layer().routing.noise = Noise::kGumbel;
  const absl::Status status = ReferenceForward(checkpoint, 1, {2, 1}, 1).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("noise = gumbel"));
}

TEST(ReferenceForward, CountsTies) {
  const TinyCheckpoint checkpoint;
  const std::vector<float> hidden = {1, 1, 2, 1};
  const auto output = ReferenceForward(checkpoint, 1, hidden, 2);
  ASSERT_TRUE(output.ok());
  EXPECT_EQ(output->routes.ties(), 1u);
  EXPECT_EQ(output->routes.tokens[0].margin, 0.0f);
  EXPECT_THAT(output->routes.tokens[0].expert_ids, ElementsAre(0));
}

// down(silu(gate x) * (up x)) in double, element by element.
std::vector<double> PlainExpert(const ExpertWeights& expert, const float* x) {
  const auto at = [](const MatrixView& view, size_t r, size_t c) {
    float value;
    ConvertElements(view.dtype, view.data + (r * view.cols + c) * BytesOf(view.dtype), Dtype::kF32,
                    &value, 1);
    return static_cast<double>(value);
  };
  std::vector<double> inner(expert.gate.rows);
  for (size_t i = 0; i < inner.size(); ++i) {
    double gate = 0;
    double up = 0;
    for (size_t c = 0; c < expert.gate.cols; ++c) {
      gate += at(expert.gate, i, c) * x[c];
      up += at(expert.up, i, c) * x[c];
    }
    inner[i] = Silu(gate) * up;
  }
  std::vector<double> output(expert.down.rows, 0.0);
  for (size_t r = 0; r < output.size(); ++r) {
    for (size_t i = 0; i < inner.size(); ++i) {
      output[r] += at(expert.down, r, i) * inner[i];
    }
  }
  return output;
}

TEST(ReferenceForward, AgreesWithPlainDoubleArithmetic) {
  std::string folder = testing::TempDir() + "expertmesh_XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  checkpoint::SyntheticOptions options;
  options.family = "deepseek_v3";
  options.d_model = 83;
  options.intermediate_size = 37;
  options.num_layers = 1;
  options.vocab_size = 8;
  const absl::Status made = checkpoint::MakeSyntheticCheckpoint(folder + "/m", options);
  ASSERT_TRUE(made.ok()) << made;
  const auto checkpoint = checkpoint::MoeCheckpoint::Open(folder + "/m");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  std::vector<float> hidden(83);
  for (size_t i = 0; i < hidden.size(); ++i) {
    hidden[i] = std::cos(static_cast<float>(i));
  }
  const auto output = ReferenceForward(**checkpoint, 0, hidden, 1);
  ASSERT_TRUE(output.ok()) << output.status();
  std::vector<double> expected = PlainExpert(*(*checkpoint)->Shared(0), hidden.data());
  for (size_t slot = 0; slot < 2; ++slot) {
    const std::vector<double> row = PlainExpert(
        *(*checkpoint)->Expert(0, output->routes.tokens[0].expert_ids[slot]), hidden.data());
    for (size_t i = 0; i < row.size(); ++i) {
      expected[i] += output->routes.tokens[0].weights[slot] * row[i];
    }
  }
  EXPECT_TRUE(RowsNear(output->output, expected, expected.size(), 1e-6));
  std::filesystem::remove_all(folder);
}

TEST(ReferenceForward, ThreadsDoNotChangeABit) {
  const TinyCheckpoint checkpoint;
  std::vector<float> hidden(2 * 100);
  for (size_t i = 0; i < hidden.size(); ++i) {
    hidden[i] = std::sin(static_cast<float>(i));
  }
  const auto one = ReferenceForward(checkpoint, 1, hidden, 100, {.threads = 1});
  const auto four = ReferenceForward(checkpoint, 1, hidden, 100, {.threads = 4});
  ASSERT_TRUE(one.ok() && four.ok());
  EXPECT_TRUE(SameBits(four->output, one->output, one->output.size() / 100));
  for (size_t token = 0; token < 100; ++token) {
    EXPECT_EQ(one->routes.tokens[token].expert_ids, four->routes.tokens[token].expert_ids);
  }
}

TEST(ReferenceForward, NoTokens) {
  const auto output = ReferenceForward(TinyCheckpoint(), 1, {}, 0);
  ASSERT_TRUE(output.ok());
  EXPECT_TRUE(output->output.empty());
}

TEST(ReferenceForward, RefusesBadCalls) {
  const TinyCheckpoint checkpoint;
  const std::vector<float> hidden(4);
  const absl::Status layer = ReferenceForward(checkpoint, 0, hidden, 2).status();
  EXPECT_EQ(layer.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(layer.message()), HasSubstr("layer 0"));
  const absl::Status size = ReferenceForward(checkpoint, 1, hidden, 3).status();
  EXPECT_EQ(size.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(size.message()), HasSubstr("4 values"));
}

TEST(ReferenceForward, HashNeedsTokenIds) {
  TinyCheckpoint checkpoint;
  checkpoint.layer().routing.choice = Choice::kHash;
  const absl::Status status = ReferenceForward(checkpoint, 1, {2, 1}, 1).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("token_ids"));
}

}  // namespace
}  // namespace expertmesh::reference
