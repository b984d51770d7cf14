#include "common/gate/shared_gate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/support/compare_rows.h"
#include "tests/support/random_values.h"

namespace expertmesh::gate {
namespace {

using ::testing::HasSubstr;

std::vector<float> Weights(const std::vector<float>& gate, Dtype model, const void* rows,
                           Dtype dtype, size_t tokens) {
  const auto made = SharedGate::Create(
      MatrixView::RowMajor(gate.data(), Dtype::kF32, 1, gate.size()), gate.size(), model);
  EXPECT_TRUE(made.ok()) << made.status();
  std::vector<float> weights(tokens);
  (*made)->Weights(rows, dtype, absl::MakeSpan(weights));
  return weights;
}

TEST(SharedGate, IsTheSigmoidOfTheProductRoundedTwice) {
  constexpr size_t kTokens = 100;
  for (const size_t d_model : {1u, 7u, 16u, 33u, 256u, 1000u}) {
    const std::vector<float> gate = NormalBF16Values(d_model, 1, 0.1f);
    const std::vector<float> rows = NormalBF16Values(kTokens * d_model, 2, 1.0f);
    const auto wide = Weights(gate, Dtype::kF32, rows.data(), Dtype::kF32, kTokens);
    const auto narrow = Weights(gate, Dtype::kBF16, rows.data(), Dtype::kF32, kTokens);
    std::vector<double> exact;
    std::vector<float> twice_rounded;
    for (size_t token = 0; token < kTokens; ++token) {
      double product = 0;
      for (size_t i = 0; i < d_model; ++i) {
        product += static_cast<double>(gate[i]) * rows[token * d_model + i];
      }
      exact.push_back(1.0 / (1.0 + std::exp(-product)));
      const float rounded = FloatFromBF16(BF16FromFloat(static_cast<float>(product)));
      const double sigmoid = 1.0 / (1.0 + std::exp(-static_cast<double>(rounded)));
      twice_rounded.push_back(FloatFromBF16(BF16FromFloat(static_cast<float>(sigmoid))));
    }
    EXPECT_TRUE(RowsNear(wide, exact, 1, 1e-5)) << d_model;
    EXPECT_TRUE(SameRows(narrow, twice_rounded, 1)) << d_model;
  }
}

TEST(SharedGate, ATokensBitsDependOnItselfAlone) {
  const std::vector<float> gate = NormalBF16Values(300, 3, 0.1f);
  const std::vector<float> rows = NormalBF16Values(9 * 300, 4, 1.0f);
  const auto together = Weights(gate, Dtype::kF32, rows.data(), Dtype::kF32, 9);
  std::vector<uint8_t> bytes(rows.size() * 2 + 1);
  ConvertElements(Dtype::kF32, rows.data(), Dtype::kBF16, bytes.data() + 1, rows.size());
  EXPECT_TRUE(SameBits(Weights(gate, Dtype::kF32, bytes.data() + 1, Dtype::kBF16, 9), together, 1));
  for (size_t token = 0; token < 9; ++token) {
    EXPECT_EQ(Weights(gate, Dtype::kF32, rows.data() + token * 300, Dtype::kF32, 1)[0],
              together[token]);
  }
}

TEST(SharedGate, RefusesWhatDoesNotFit) {
  const float values[4] = {};
  const auto message = [&](const MatrixView& view, size_t d_model) {
    const auto made = SharedGate::Create(view, d_model, Dtype::kF32);
    EXPECT_EQ(made.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(made.status().message());
  };
  EXPECT_THAT(message(MatrixView(), 4), HasSubstr("[0, 0]; it must be F32, BF16 or F16 [1, "));
  EXPECT_THAT(message(MatrixView::RowMajor(values, Dtype::kF32, 1, 4), 5), HasSubstr("[1, 4]"));
  EXPECT_THAT(message(MatrixView::RowMajor(values, Dtype::kF32, 2, 2), 2), HasSubstr("[2, 2]"));
  EXPECT_THAT(message(MatrixView::RowMajor(values, Dtype::kF8E4M3, 1, 4), 4), HasSubstr("F8_E4M3"));
}

}  // namespace
}  // namespace expertmesh::gate
