#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "client/cpp/reference/reference_moe.h"
#include "common/checkpoint/synthetic.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace expertmesh {
namespace {

using testing::ElementsAre;
using testing::FloatEq;
using testing::FloatNear;
using testing::HasSubstr;
using testing::Pointwise;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

const std::vector<float>& GoldenLogits() {
  static const std::vector<float>* const kLogits =
      new std::vector<float>{0.5f, 2.0f, -1.0f, 1.5f, 0.0f, 1.0f, -0.5f, 0.25f};
  return *kLogits;
}

RoutingOptions Options(uint32_t experts, uint32_t top_k) {
  RoutingOptions routing;
  routing.num_experts = experts;
  routing.top_k = top_k;
  return routing;
}

RoutingOptions DeepseekV3() {
  RoutingOptions routing = Options(8, 2);
  routing.score = ScoreFunction::kSigmoid;
  routing.select_bias = true;
  routing.n_group = 4;
  routing.topk_group = 2;
  routing.group_score = GroupScore::kTopTwoSum;
  routing.masked_choice = -kInfinity;
  routing.renormalise = Renormalise::kSum;
  routing.renormalise_epsilon = 1e-20f;
  routing.scale = 2.5f;
  return routing;
}

TEST(RouteReference, SoftmaxWithoutRenormalising) {
  const ReferenceRouting routing = RouteReference(Options(8, 2), DType::kF32, GoldenLogits(), {});
  EXPECT_THAT(routing.expert_ids, ElementsAre(1, 3));
  EXPECT_THAT(routing.weights, Pointwise(FloatNear(1e-6f), {0.3790001f, 0.2298752f}));
  EXPECT_NEAR(routing.margin, 0.2298752f - 0.1394264f, 1e-6f);
  EXPECT_FALSE(routing.tie);
}

TEST(RouteReference, SoftmaxRenormalised) {
  RoutingOptions options = Options(8, 2);
  options.renormalise = Renormalise::kSum;
  EXPECT_THAT(RouteReference(options, DType::kF32, GoldenLogits(), {}).weights,
              Pointwise(FloatNear(1e-6f), {0.6224593f, 0.3775407f}));
  options.renormalise = Renormalise::kNone;
  options.scope = ScoreScope::kSelected;
  EXPECT_THAT(RouteReference(options, DType::kF32, GoldenLogits(), {}).weights,
              Pointwise(FloatNear(1e-6f), {0.6224593f, 0.3775407f}));
}

TEST(RouteReference, DeepseekV3Groups) {
  const std::vector<float> bias = {0.0f, -0.3f, 0.4f, 0.0f, 0.35f, 0.0f, 0.1f, 0.0f};
  const ReferenceRouting routing = RouteReference(DeepseekV3(), DType::kBF16, GoldenLogits(), bias);
  EXPECT_THAT(routing.expert_ids, ElementsAre(4, 3));
  EXPECT_THAT(routing.weights, Pointwise(FloatNear(1e-6f), {0.948713f, 1.551287f}));
  // Expert 3 (.8176) is ahead of expert 5 (.7311) by less than group 1 of group 0 (.2833).
  EXPECT_NEAR(routing.margin, 0.8175745f - 0.7310586f, 1e-6f);
}

TEST(RouteReference, MaxGroupsMaskedWithZero) {
  RoutingOptions options = Options(8, 2);
  options.n_group = 4;
  options.topk_group = 1;
  options.group_score = GroupScore::kMax;
  options.scale = 16.0f;
  const ReferenceRouting routing = RouteReference(options, DType::kF32, GoldenLogits(), {});
  EXPECT_THAT(routing.expert_ids, ElementsAre(1, 0));
  EXPECT_THAT(routing.weights, Pointwise(FloatNear(1e-5f), {6.064002f, 1.3530617f}));
}

// With a bias of -1 or less every choice is negative: masked by 0.0, experts of groups that were
// left out would win. Groups sum to 1.503, 1.087, 1.231 and .940 (minus 4): 0 and 2 are kept.
TEST(RouteReference, MinusInfinityKeepsOtherGroupsOut) {
  const std::vector<float> bias(8, -2.0f);
  RoutingOptions options = DeepseekV3();
  EXPECT_THAT(RouteReference(options, DType::kF32, GoldenLogits(), bias).expert_ids,
              ElementsAre(1, 5));
  options.masked_choice = 0.0f;
  EXPECT_THAT(RouteReference(options, DType::kF32, GoldenLogits(), bias).expert_ids,
              ElementsAre(2, 3));
}

TEST(RouteReference, MarginOfGroupsCounts) {
  // Groups {0, 1} and {2, 3} sum to the same; the lower one is kept.
  RoutingOptions options = Options(4, 1);
  options.score = ScoreFunction::kIdentity;
  options.n_group = 2;
  options.topk_group = 1;
  options.group_score = GroupScore::kTopTwoSum;
  options.masked_choice = -kInfinity;
  const std::vector<float> logits = {1.0f, 3.0f, 4.0f, 0.0f};
  const ReferenceRouting routing = RouteReference(options, DType::kF32, logits, {});
  EXPECT_THAT(routing.expert_ids, ElementsAre(1));
  EXPECT_TRUE(routing.tie);
}

TEST(RouteReference, LowestIndexWinsTies) {
  const std::vector<float> logits = {0.0f, 1.0f, 1.0f, 1.0f};
  const ReferenceRouting routing = RouteReference(Options(4, 2), DType::kF32, logits, {});
  EXPECT_THAT(routing.expert_ids, ElementsAre(1, 2));
  EXPECT_EQ(routing.margin, 0.0f);
  EXPECT_TRUE(routing.tie);
}

TEST(RouteReference, RoundsLikeTheModel) {
  // 1 and 1.001 are one number in bfloat16.
  const std::vector<float> logits = {1.0f, 1.001f, 0.0f};
  RoutingOptions options = Options(3, 1);
  options.logit_dtype = LogitDType::kModel;
  options.weight_dtype = WeightDType::kModel;
  const ReferenceRouting rounded = RouteReference(options, DType::kBF16, logits, {});
  EXPECT_THAT(rounded.expert_ids, ElementsAre(0));
  EXPECT_TRUE(rounded.tie);
  EXPECT_EQ(rounded.weights[0], FloatFromBF16(BF16FromFloat(rounded.weights[0])));
  EXPECT_THAT(RouteReference(options, DType::kF16, logits, {}).expert_ids, ElementsAre(1));
  EXPECT_THAT(RouteReference(options, DType::kBF16, logits, {}, false).expert_ids, ElementsAre(1));
  options.logit_dtype = LogitDType::kF32;
  EXPECT_THAT(RouteReference(options, DType::kBF16, logits, {}).expert_ids, ElementsAre(1));
}

TEST(RouteReference, NothingLeftOutHasInfiniteMargin) {
  const ReferenceRouting routing = RouteReference(Options(8, 8), DType::kF32, GoldenLogits(), {});
  EXPECT_EQ(routing.expert_ids.size(), 8u);
  EXPECT_EQ(routing.margin, kInfinity);
  EXPECT_FALSE(routing.tie);
}

TEST(RouteReference, SurvivesNaN) {
  const std::vector<float> logits(4, std::numeric_limits<float>::quiet_NaN());
  const ReferenceRouting routing = RouteReference(Options(4, 2), DType::kF32, logits, {});
  EXPECT_THAT(routing.expert_ids, ElementsAre(0, 1));
  EXPECT_TRUE(std::isnan(routing.weights[0]));
}

// Two experts of width 1 over d_model 2, and a shared one, small enough to compute by hand.
class TinyCheckpoint final : public MoeCheckpoint {
 public:
  TinyCheckpoint() {
    model_.family = "tiny";
    model_.d_model = 2;
    model_.num_layers = 2;
    MoeLayerDescription layer;
    layer.layer = 1;
    layer.routing = Options(2, 1);
    layer.expert = {2, 1, Activation::kSilu};
    layer.shared_intermediate_size = 1;
    model_.layers = {layer};
  }

  MoeLayerDescription& layer() { return model_.layers[0]; }

  const ModelDescription& model() const override { return model_; }
  const std::string& fingerprint() const override { return fingerprint_; }
  absl::StatusOr<GateWeights> Gate(uint32_t) const override {
    return GateWeights{View(gate_, 2, 2), {}};
  }
  absl::StatusOr<ExpertWeights> Expert(uint32_t, uint32_t expert) const override {
    const float* const weights = experts_[expert];
    // Expert 1 lies transposed: its down projection is stored [1, 2] by columns.
    MatrixView down = View(weights + 4, 2, 1);
    if (expert == 1) {
      down.row_stride = 1;
      down.col_stride = 2;
    }
    return ExpertWeights{View(weights, 1, 2), View(weights + 2, 1, 2), down};
  }
  absl::StatusOr<ExpertWeights> Shared(uint32_t) const override {
    return ExpertWeights{View(shared_, 1, 2), View(shared_ + 2, 1, 2), View(shared_ + 4, 2, 1)};
  }

 private:
  static MatrixView View(const float* data, size_t rows, size_t cols) {
    return MatrixView::RowMajor(data, DType::kF32, rows, cols);
  }

  ModelDescription model_;
  std::string fingerprint_;
  const float gate_[4] = {1, 0, 0, 1};
  // gate row, up row, down column.
  const float experts_[2][6] = {{1, 0, 0, 1, 1, 2}, {0, 1, 1, 0, 3, -1}};
  const float shared_[6] = {1, 1, 1, -1, 1, 1};
};

double Silu(double x) { return x / (1 + std::exp(-x)); }

TEST(ReferenceForward, HandComputed) {
  const TinyCheckpoint checkpoint;
  // Token 0 goes to expert 0 (logits 2, 1), token 1 to expert 1 (logits -1, 3).
  const std::vector<float> hidden = {2, 1, -1, 3};
  const auto output = ReferenceForward(checkpoint, 1, hidden, 2);
  ASSERT_TRUE(output.ok()) << output.status();
  EXPECT_THAT(output->expert_ids, ElementsAre(0, 1));
  const double p0 = 1 / (1 + std::exp(-1.0));
  const double p1 = 1 / (1 + std::exp(-4.0));
  EXPECT_NEAR(output->weights[0], p0, 1e-6);
  EXPECT_NEAR(output->weights[1], p1, 1e-6);
  const double inner0 = Silu(2) * 1;   // silu(x0) * x1
  const double inner1 = Silu(3) * -1;  // silu(x1) * x0
  const double shared0 = Silu(3) * 1;  // silu(x0 + x1) * (x0 - x1)
  const double shared1 = Silu(2) * -4;
  EXPECT_NEAR(output->output[0], p0 * inner0 + shared0, 1e-5);
  EXPECT_NEAR(output->output[1], p0 * inner0 * 2 + shared0, 1e-5);
  EXPECT_NEAR(output->output[2], p1 * inner1 * 3 + shared1, 1e-5);
  EXPECT_NEAR(output->output[3], p1 * inner1 * -1 + shared1, 1e-5);
  EXPECT_EQ(output->ties, 0u);
  EXPECT_NEAR(output->margins[0], 2 * p0 - 1, 1e-6);
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

TEST(ReferenceForward, CountsTies) {
  const TinyCheckpoint checkpoint;
  const std::vector<float> hidden = {1, 1, 2, 1};
  const auto output = ReferenceForward(checkpoint, 1, hidden, 2);
  ASSERT_TRUE(output.ok());
  EXPECT_EQ(output->ties, 1u);
  EXPECT_EQ(output->margins[0], 0.0f);
  EXPECT_EQ(output->expert_ids[0], 0u);
}

// down(silu(gate x) * (up x)) in double, element by element.
std::vector<double> PlainExpert(const ExpertWeights& expert, const float* x) {
  const auto at = [](const MatrixView& view, size_t r, size_t c) {
    float value;
    ConvertElements(view.dtype, view.data + (r * view.cols + c) * BytesOf(view.dtype), DType::kF32,
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
  SyntheticOptions options;
  options.family = "deepseek_v3";
  options.d_model = 83;
  options.intermediate_size = 37;
  options.num_layers = 1;
  options.vocab_size = 8;
  const absl::Status made = MakeSyntheticCheckpoint(folder + "/m", options);
  ASSERT_TRUE(made.ok()) << made;
  const auto checkpoint = MoeCheckpoint::Open(folder + "/m");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  std::vector<float> hidden(83);
  for (size_t i = 0; i < hidden.size(); ++i) {
    hidden[i] = std::cos(static_cast<float>(i));
  }
  const auto output = ReferenceForward(**checkpoint, 0, hidden, 1);
  ASSERT_TRUE(output.ok()) << output.status();
  std::vector<double> expected = PlainExpert(*(*checkpoint)->Shared(0), hidden.data());
  for (size_t slot = 0; slot < 2; ++slot) {
    const std::vector<double> row =
        PlainExpert(*(*checkpoint)->Expert(0, output->expert_ids[slot]), hidden.data());
    for (size_t i = 0; i < row.size(); ++i) {
      expected[i] += output->weights[slot] * row[i];
    }
  }
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(output->output[i], expected[i], 1e-6);
  }
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
  EXPECT_EQ(one->output, four->output);
  EXPECT_EQ(one->expert_ids, four->expert_ids);
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

}  // namespace
}  // namespace expertmesh
