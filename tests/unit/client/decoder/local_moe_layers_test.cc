#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cpp/decoder/moe_layers.h"
#include "client/cpp/reference/reference_moe.h"
#include "common/checkpoint/synthetic.h"
#include "common/experts/backend_factory.h"
#include "common/model/routing_json.h"
#include "tests/support/compare_rows.h"

namespace expertmesh::decoder {
namespace {

constexpr uint32_t kTokens = 40;
constexpr uint32_t kWidth = 256;
const std::vector<uint32_t> kGroups = {7, 32, 1};

// Numbers that bfloat16 has.
std::vector<float> Hidden() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> values(kTokens * kWidth);
  for (float& value : values) {
    value = FloatFromBF16(BF16FromFloat(normal(random)));
  }
  return values;
}

std::vector<uint32_t> TokenIds() {
  std::vector<uint32_t> ids(kTokens);
  for (uint32_t token = 0; token < kTokens; ++token) {
    ids[token] = 7919 * token;
  }
  return ids;
}

// A checkpoint whose layers are routed in another way.
class Rerouted final : public checkpoint::MoeCheckpoint {
 public:
  Rerouted(std::shared_ptr<const checkpoint::MoeCheckpoint> base, const std::string& routing)
      : base_(std::move(base)), model_(base_->model()) {
    for (MoeLayerDescription& layer : model_.layers) {
      layer.routing = WithRoutingJson(layer.routing, routing).value();
    }
  }

  const ModelDescription& model() const override { return model_; }
  const std::string& fingerprint() const override { return base_->fingerprint(); }
  absl::StatusOr<GateWeights> Gate(uint32_t layer) const override { return base_->Gate(layer); }
  absl::StatusOr<ExpertWeights> Expert(uint32_t layer, uint32_t expert) const override {
    return base_->Expert(layer, expert);
  }
  absl::StatusOr<ExpertWeights> Shared(uint32_t layer) const override {
    return base_->Shared(layer);
  }

 private:
  const std::shared_ptr<const checkpoint::MoeCheckpoint> base_;
  ModelDescription model_;
};

class LocalMoeLayersTest : public testing::Test {
 protected:
  ~LocalMoeLayersTest() override { std::filesystem::remove_all(folder_); }

  // A random model of `family`, routed with these changes.
  void Make(const std::string& family, Dtype stored, const std::string& routing = "{}") {
    std::filesystem::remove_all(folder_);
    std::string name = testing::UnitTest::GetInstance()->current_test_info()->name();
    std::replace(name.begin(), name.end(), '/', '_');
    folder_ = absl::StrCat(testing::TempDir(), "/local_moe_layers_test_", name, "_", family);
    std::filesystem::remove_all(folder_);
    checkpoint::SyntheticOptions made;
    made.family = family;
    made.dtype = stored;
    made.d_model = kWidth;
    ASSERT_TRUE(checkpoint::MakeSyntheticCheckpoint(folder_, made).ok());
    checkpoint_ =
        std::make_shared<Rerouted>(checkpoint::MoeCheckpoint::Open(folder_).value(), routing);
  }

  absl::StatusOr<std::unique_ptr<MoeLayers>> Load(Dtype compute, int threads = 1) {
    experts::BackendOptions options;
    options.compute_dtype = compute;
    options.threads = 1;
    backends_.push_back(experts::MakeBackend("cpu", options).value());
    return MakeLocalMoeLayers(checkpoint_, backends_.back().get(), threads);
  }

  const MoeLayerDescription& layer() const { return checkpoint_->model().layers[0]; }
  MoeCall Call() const { return {layer().layer, hidden_, kTokens, token_ids_, kGroups}; }

  // Largest relative error of a token against the reference; tokens that rounding may send
  // elsewhere do not count.
  double Error(Dtype compute) {
    const MoeResult result = Load(compute).value()->Compute(Call()).value();
    const reference::ReferenceInput input = {hidden_, kTokens, token_ids_, kGroups};
    const reference::ReferenceOptions as{.activation_dtype = compute};
    const reference::ReferenceRoutes routes =
        reference::RouteWithReference(*checkpoint_, layer().layer, layer().routing, input, as)
            .value();
    const std::vector<float> expected =
        reference::ComputeWithReference(*checkpoint_, layer().layer, layer().routing, input,
                                        reference::ExpertsOf(routes.tokens), as)
            .value();
    double worst = 0;
    size_t counted = 0;
    for (size_t token = 0; token < kTokens; ++token) {
      if (routes.tokens[token].margin < (compute == Dtype::kF32 ? 1e-5f : 1e-4f)) {
        continue;
      }
      ++counted;
      double difference = 0;
      double norm = 0;
      for (size_t i = token * kWidth; i < (token + 1) * kWidth; ++i) {
        difference += std::pow(double{result.output[i]} - expected[i], 2);
        norm += std::pow(double{expected[i]}, 2);
      }
      worst = std::max(worst, difference == 0 ? 0 : difference / norm);
    }
    EXPECT_GT(counted, kTokens / 2);
    return std::sqrt(worst);
  }

  std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint_;

 private:
  const std::vector<float> hidden_ = Hidden();
  const std::vector<uint32_t> token_ids_ = TokenIds();
  std::string folder_;
  std::vector<std::unique_ptr<experts::Backend>> backends_;
};

// Where weights are stored as one type and computed in another.
class LocalMoeLayersFamilyTest : public LocalMoeLayersTest,
                                 public testing::WithParamInterface<std::string> {};

TEST_P(LocalMoeLayersFamilyTest, RoundsToWhatItComputesIn) {
  Make(GetParam(), Dtype::kF32);
  EXPECT_LE(Error(Dtype::kF32), 1e-5);
  EXPECT_LE(Error(Dtype::kBF16), 1e-2);
  Make(GetParam(), Dtype::kBF16);
  EXPECT_LE(Error(Dtype::kF32), 1e-5);
  EXPECT_LE(Error(Dtype::kBF16), 1e-2);
}

// Logits and weights; the shared gate; the sparse mixer, every step.
INSTANTIATE_TEST_SUITE_P(Families, LocalMoeLayersFamilyTest,
                         testing::Values("mixtral", "qwen2_moe", "phimoe", "deepseek_v3"),
                         [](const auto& info) { return info.param; });

// Routing that looks at groups or at token ids, and what weights leave of a token.
TEST_F(LocalMoeLayersTest, RoutesByEveryOptionOfTheRouter) {
  for (const char* routing :
       {R"({"capacity_tokens": 2})", R"({"capacity_factor": 0.5, "drop": "batch_prioritised"})",
        R"({"capacity_tokens": 3, "drop": "next_best"})",
        R"({"choice": "expert_choice", "capacity_factor": 2})", R"({"choice": "hash", "top_k": 1})",
        R"({"top_k": 1, "score": "sigmoid", "renormalise": "none", "capacity_tokens": 2,
            "pass_through": "complement"})"}) {
    SCOPED_TRACE(routing);
    Make("qwen2_moe", Dtype::kF32, routing);
    EXPECT_LE(Error(Dtype::kF32), 1e-5);
  }
}

// A seed makes a text that can be written once more.
TEST_F(LocalMoeLayersTest, NoiseFollowsFromTheSeed) {
  std::vector<std::vector<uint32_t>> chosen;
  for (const int seed : {5, 5, 6}) {
    Make("mixtral", Dtype::kF32,
         absl::StrCat(R"({"noise": "gumbel", "noise_scale": 3, "seed": )", seed, "}"));
    chosen.push_back(Load(Dtype::kF32).value()->Compute(Call()).value().expert_ids);
  }
  EXPECT_TRUE(chosen[0] == chosen[1]);
  EXPECT_FALSE(chosen[0] == chosen[2]);
}

TEST_F(LocalMoeLayersTest, ThreadsDoNotChangeABit) {
  Make("deepseek_v3", Dtype::kBF16);
  // So many that the gate divides them.
  std::vector<float> hidden;
  for (size_t i = 0; i < 4; ++i) {
    const std::vector<float> rows = Hidden();
    hidden.insert(hidden.end(), rows.begin(), rows.end());
  }
  const MoeCall call = {layer().layer, hidden, 4 * kTokens, {}, {}};
  const MoeResult alone = Load(Dtype::kBF16).value()->Compute(call).value();
  const MoeResult beside = Load(Dtype::kBF16, 3).value()->Compute(call).value();
  EXPECT_TRUE(SameBits(beside.output, alone.output, kWidth));
  EXPECT_TRUE(SameBits(beside.expert_ids, alone.expert_ids, layer().routing.top_k));
}

TEST_F(LocalMoeLayersTest, ErrorsNameTheLayer) {
  Make("mixtral", Dtype::kF32);
  const auto layers = Load(Dtype::kF32).value();
  MoeCall call = Call();
  call.layer = 77;
  EXPECT_EQ(layers->Compute(call).status().code(), absl::StatusCode::kNotFound);
  call = Call();
  call.group_sizes = {};
  EXPECT_TRUE(layers->Compute(call).ok());
  const std::vector<uint32_t> few = {3};
  call.group_sizes = few;
  const absl::Status status = layers->Compute(call).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  const std::string named = absl::StrCat("MoE layer ", layer().layer, ": group_sizes");
  EXPECT_EQ(status.message().substr(0, named.size()), named);
}

}  // namespace
}  // namespace expertmesh::decoder
