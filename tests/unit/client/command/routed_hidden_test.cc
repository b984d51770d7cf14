#include "client/cpp/command/routed_hidden.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "absl/strings/str_replace.h"
#include "client/cpp/reference/reference_moe.h"
#include "common/balance/measures.h"
#include "tests/support/compare_rows.h"
#include "tests/unit/common/checkpoint/made_checkpoint.h"

namespace expertmesh::command {
namespace {

constexpr size_t kTokens = 256;

checkpoint::SyntheticOptions Shape(const std::string& family) {
  checkpoint::SyntheticOptions options = checkpoint::Small(family);
  options.d_model = 256;
  options.num_layers = 1;
  options.num_experts = 32;
  options.top_k = 4;
  return options;
}

std::string FreshFolder(const std::string& name) {
  const std::string folder = testing::TempDir() + "/routed_hidden_" + name;
  std::filesystem::remove_all(folder);
  return folder;
}

// Who the experts of each token are, sorted, by the reference.
std::vector<std::vector<uint32_t>> Routed(const checkpoint::MoeCheckpoint& checkpoint,
                                          const client::Matrix& hidden) {
  const std::vector<float> values = hidden.ToFloats();
  const auto routes = reference::RouteWithReference(
      checkpoint, 0, checkpoint.model().layers[0].routing, {values, hidden.rows()});
  EXPECT_TRUE(routes.ok()) << routes.status();
  std::vector<std::vector<uint32_t>> experts;
  for (const reference::ReferenceRouting& token : routes->tokens) {
    experts.push_back(token.expert_ids);
    std::sort(experts.back().begin(), experts.back().end());
  }
  return experts;
}

double Violation(const std::vector<std::vector<uint32_t>>& routed) {
  std::vector<uint64_t> load(32);
  for (const std::vector<uint32_t>& token : routed) {
    for (const uint32_t expert : token) {
      ++load[expert];
    }
  }
  return balance::MaxViolation(load);
}

class RoutedHiddenTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    checkpoint::SyntheticOptions options = Shape(GetParam());
    if (GetParam() == "deepseek_v3") {
      options.n_group = 4;
      options.topk_group = 2;
    }
    const std::string test = testing::UnitTest::GetInstance()->current_test_info()->name();
    checkpoint_ = checkpoint::Make(FreshFolder(absl::StrReplaceAll(test, {{"/", "_"}})), options);
  }

  std::vector<std::vector<uint32_t>> Of(RoutingKind kind, uint64_t seed = 1) {
    const auto maker = HiddenMaker::Create(kind, *checkpoint_, 0, client::Dtype::kBFloat16);
    EXPECT_TRUE(maker.ok()) << maker.status();
    return Routed(*checkpoint_, maker->Make(kTokens, seed));
  }

  std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint_;
};

TEST_P(RoutedHiddenTest, KHotIsTheSameExpertsForAllTokensOfAllRequests) {
  const auto one = Of(RoutingKind::kKHot, 1);
  const auto other = Of(RoutingKind::kKHot, 2);
  std::set<std::vector<uint32_t>> all(one.begin(), one.end());
  all.insert(other.begin(), other.end());
  EXPECT_EQ(all.size(), 1u);
  EXPECT_DOUBLE_EQ(Violation(one), 32.0 / 4 - 1);
}

TEST_P(RoutedHiddenTest, UniformIsEvenAndZipfIsNot) {
  const double uniform = Violation(Of(RoutingKind::kUniform));
  const double zipf = Violation(Of(RoutingKind::kZipf));
  EXPECT_LT(uniform, 0.8);
  EXPECT_GT(zipf, 1.5);
  EXPECT_LT(zipf, 7);
}

INSTANTIATE_TEST_SUITE_P(Families, RoutedHiddenTest, testing::Values("qwen3_moe", "deepseek_v3"),
                         [](const auto& family) { return family.param; });

TEST(HiddenMakerTest, SameSeedSameValues) {
  const HiddenMaker maker(client::Dtype::kFloat32, 8);
  EXPECT_TRUE(SameBits(maker.Make(3, 5).ToFloats(), maker.Make(3, 5).ToFloats(), 8));
  EXPECT_FALSE(SameRows(maker.Make(3, 5).ToFloats(), maker.Make(3, 6).ToFloats(), 8));
}

TEST(HiddenMakerTest, RefusesLayersThatAreNotThere) {
  const auto checkpoint = checkpoint::Make(FreshFolder("other"), checkpoint::Small("mixtral"));
  EXPECT_TRUE(
      HiddenMaker::Create(RoutingKind::kUniform, *checkpoint, 0, client::Dtype::kFloat32).ok());
  EXPECT_EQ(HiddenMaker::Create(RoutingKind::kUniform, *checkpoint, 9, client::Dtype::kFloat32)
                .status()
                .code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace expertmesh::command
