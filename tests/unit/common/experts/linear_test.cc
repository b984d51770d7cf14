#include "common/experts/linear.h"

#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/support/compare_rows.h"
#include "tests/support/random_values.h"

namespace expertmesh::experts {
namespace {

MatrixView View(const std::vector<float>& values, size_t rows, size_t cols) {
  return MatrixView::RowMajor(values.data(), Dtype::kF32, rows, cols);
}

std::vector<float> Multiply(const Linear& linear, size_t rows, const std::vector<float>& x,
                            int threads) {
  LinearTeam team(threads);
  std::vector<float> y(rows * linear.outputs());
  team.Multiply(linear, rows, x.data(), y.data());
  return y;
}

// y = x W^T + b in double.
void ExpectProduct(const std::vector<float>& x, const std::vector<float>& w,
                   const std::vector<float>& b, size_t inputs, const std::vector<float>& y,
                   double tolerance) {
  const size_t outputs = b.size();
  std::vector<double> expected;
  for (size_t i = 0; i < y.size(); ++i) {
    const size_t row = i / outputs;
    const size_t column = i % outputs;
    double sum = b[column];
    for (size_t j = 0; j < inputs; ++j) {
      sum += static_cast<double>(x[row * inputs + j]) * w[column * inputs + j];
    }
    expected.push_back(sum);
  }
  EXPECT_TRUE(RowsNear(y, expected, outputs, tolerance));
}

TEST(LinearTest, IsTheProductOfOddShapes) {
  // Neither a multiple of a vector nor of a block, and more rows than one product takes.
  for (const size_t inputs : {1, 45, 700}) {
    for (const size_t outputs : {1, 67, 300}) {
      const std::vector<float> w = NormalValues(inputs * outputs, 1);
      const std::vector<float> b = NormalValues(outputs, 2);
      const auto linear =
          Linear::Pack(Dtype::kF32, {{View(w, outputs, inputs), View(b, 1, outputs)}});
      ASSERT_TRUE(linear.ok()) << linear.status();
      for (const size_t rows : {1, 3, 9, 300}) {
        const std::vector<float> x = NormalValues(rows * inputs, 3);
        ExpectProduct(x, w, b, inputs, Multiply(**linear, rows, x, 2), 2e-4);
      }
    }
  }
}

TEST(LinearTest, PutsPartsSideBySide) {
  const std::vector<float> a = NormalValues(5 * 8, 1);
  const std::vector<float> b = NormalValues(3 * 8, 2);
  const std::vector<float> bias = NormalValues(3, 3);
  const auto linear =
      Linear::Pack(Dtype::kF32, {{View(a, 5, 8)}, {View(b, 3, 8), View(bias, 1, 3)}});
  ASSERT_TRUE(linear.ok()) << linear.status();
  EXPECT_EQ((*linear)->outputs(), 8u);
  std::vector<float> weights = a;
  weights.insert(weights.end(), b.begin(), b.end());
  std::vector<float> biases(5, 0.0f);
  biases.insert(biases.end(), bias.begin(), bias.end());
  const std::vector<float> x = NormalValues(2 * 8, 4);
  ExpectProduct(x, weights, biases, 8, Multiply(**linear, 2, x, 1), 1e-5);
}

TEST(LinearTest, ARowHasTheSameBitsAloneAndBesideOthers) {
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBF16}) {
    const size_t inputs = 1200;
    const size_t outputs = 520;
    const std::vector<float> w = NormalValues(inputs * outputs, 1);
    const auto linear = Linear::Pack(dtype, {{View(w, outputs, inputs)}});
    ASSERT_TRUE(linear.ok()) << linear.status();
    const size_t rows = 70;
    const std::vector<float> x = NormalValues(rows * inputs, 2);
    const std::vector<float> together = Multiply(**linear, rows, x, 3);
    for (const size_t row : {size_t{0}, size_t{8}, rows - 1}) {
      const std::vector<float> own(x.begin() + static_cast<ptrdiff_t>(row * inputs),
                                   x.begin() + static_cast<ptrdiff_t>((row + 1) * inputs));
      const std::vector<float> alone = Multiply(**linear, 1, own, 1);
      const auto beside = absl::MakeConstSpan(together).subspan(row * outputs, outputs);
      ASSERT_TRUE(SameBits(alone, beside, outputs)) << NameOf(dtype) << " row " << row;
    }
  }
}

TEST(LinearTest, Bf16IsCloseToFloat32) {
  const std::vector<float> w = NormalValues(64 * 96, 1);
  const auto linear = Linear::Pack(Dtype::kBF16, {{View(w, 64, 96)}});
  ASSERT_TRUE(linear.ok()) << linear.status();
  const std::vector<float> x = NormalValues(4 * 96, 2);
  // Two roundings of 2^-9 each; sums of 96 products of size 1.
  ExpectProduct(x, w, std::vector<float>(64), 96, Multiply(**linear, 4, x, 1), 0.3);
}

TEST(LinearTest, RefusesWhatDoesNotFit) {
  const std::vector<float> values(64, 1.0f);
  EXPECT_EQ(Linear::Pack(Dtype::kF32, {}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Linear::Pack(Dtype::kF32, {{View(values, 4, 8)}, {View(values, 4, 4)}}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Linear::Pack(Dtype::kF32, {{View(values, 4, 8), View(values, 1, 3)}}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(LinearTeamTest, RunsEveryTaskOnce) {
  LinearTeam team(3);
  for (const size_t cost : {size_t{1}, size_t{1} << 30}) {
    std::vector<int> runs(50, 0);
    team.ForEach(runs.size(), cost, [&](size_t task) { ++runs[task]; });
    EXPECT_EQ(runs, std::vector<int>(50, 1));
  }
}

}  // namespace
}  // namespace expertmesh::experts
