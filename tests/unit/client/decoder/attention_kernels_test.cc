#include "client/cpp/decoder/attention_kernels.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "tests/support/compare_rows.h"
#include "tests/support/random_values.h"

namespace expertmesh::decoder {
namespace {

// Softmax attention in double, straight from the formula.
std::vector<double> Oracle(const AttendedRows& rows, const AttendingQuery& query, double scale) {
  std::vector<double> weights;
  double highest = -1e300;
  for (size_t t = query.begin; t < query.end; ++t) {
    double score = 0;
    for (size_t i = 0; i < rows.key_width; ++i) {
      score += static_cast<double>(query.query[i]) * rows.keys[t * rows.key_stride + i];
    }
    weights.push_back(score * scale);
    highest = std::max(highest, weights.back());
  }
  double sum = 0;
  for (double& weight : weights) {
    weight = std::exp(weight - highest);
    sum += weight;
  }
  std::vector<double> out(rows.value_width);
  for (size_t t = query.begin; t < query.end; ++t) {
    for (size_t i = 0; i < rows.value_width; ++i) {
      out[i] += weights[t - query.begin] / sum * rows.values[t * rows.value_stride + i];
    }
  }
  return out;
}

class AttentionKernelsTest : public testing::TestWithParam<size_t> {
 protected:
  const AttentionKernels& kernels() const { return *AllAttentionKernels()[GetParam()]; }
};

TEST_P(AttentionKernelsTest, DotAndSums) {
  for (const size_t count : {0, 1, 15, 16, 45, 128, 300}) {
    const std::vector<float> a = NormalValues(count, 1);
    const std::vector<float> b = NormalValues(count, 2);
    std::vector<float> sum = NormalValues(count, 3);
    const std::vector<float> before = sum;
    double expected = 0;
    for (size_t i = 0; i < count; ++i) {
      expected += static_cast<double>(a[i]) * b[i];
    }
    EXPECT_NEAR(kernels().dot(a.data(), b.data(), count), expected, 1e-4);
    kernels().add_scaled(0.5f, a.data(), count, sum.data());
    std::vector<float> sums;
    for (size_t i = 0; i < count; ++i) {
      sums.push_back(before[i] + 0.5f * a[i]);
    }
    EXPECT_TRUE(RowsNear(sum, sums, 1, 1e-6));
  }
}

TEST_P(AttentionKernelsTest, RmsNorm) {
  const std::vector<float> x = NormalValues(45, 1);
  const std::vector<float> weight = NormalValues(45, 2);
  double mean = 0;
  for (const float value : x) {
    mean += static_cast<double>(value) * value / 45;
  }
  std::vector<float> out = x;
  kernels().rms_norm(out.data(), weight.data(), 0.01f, 45, out.data());
  std::vector<double> expected;
  for (size_t i = 0; i < 45; ++i) {
    expected.push_back(x[i] / std::sqrt(mean + 0.01) * weight[i]);
  }
  EXPECT_TRUE(RowsNear(out, expected, 45, 1e-5));
}

// Queries that begin and end anywhere, of widths with and without tails.
TEST_P(AttentionKernelsTest, AttendsLikeTheFormula) {
  for (const size_t width : {8, 48, 80, 45}) {
    const size_t rows = 300;
    const size_t stride = 2 * width + 3;
    // Scores that differ by tens: the highest comes late, and what was summed must be rescaled.
    const std::vector<float> kept = NormalValues(rows * stride, 1, 2.0f);
    const std::vector<float> asked = NormalValues(9 * width, 2, 2.0f);
    AttendedRows attended{kept.data(), stride, width, kept.data() + width, stride, width};
    std::vector<float> out(9 * width);
    const size_t begins[] = {0, 0, 0, 0, 63, 64, 100, 250, 299};
    const size_t ends[] = {1, 64, 65, 300, 64, 192, 163, 299, 300};
    std::vector<AttendingQuery> queries;
    for (size_t q = 0; q < 9; ++q) {
      queries.push_back({asked.data() + q * width, begins[q], ends[q], out.data() + q * width});
    }
    AttentionScratch scratch;
    kernels().attend(attended, queries.data(), queries.size(), 0.7f, &scratch);
    for (size_t q = 0; q < 9; ++q) {
      const auto row = absl::MakeConstSpan(out).subspan(q * width, width);
      ASSERT_TRUE(RowsNear(row, Oracle(attended, queries[q], 0.7f), width, 2e-5)) << "query " << q;
    }
    // The same bits for each query alone.
    std::vector<float> alone(width);
    for (size_t q = 0; q < 9; ++q) {
      AttendingQuery query = queries[q];
      query.out = alone.data();
      kernels().attend(attended, &query, 1, 0.7f, &scratch);
      const auto row = absl::MakeConstSpan(out).subspan(q * width, width);
      ASSERT_TRUE(SameBits(alone, row, width)) << "query " << q;
    }
  }
}

TEST_P(AttentionKernelsTest, ScoresFarApartStayNumbers) {
  const size_t width = 16;
  std::vector<float> kept(130 * width, 0.0f);
  for (size_t t = 0; t < 130; ++t) {
    kept[t * width] = static_cast<float>(t) * 100.0f - 6000.0f;
  }
  const AttendedRows rows{kept.data(), width, width, kept.data(), width, width};
  std::vector<float> query(width, 0.0f);
  std::vector<float> out(width);
  for (const float sign : {1.0f, -1.0f}) {
    query[0] = sign;
    const AttendingQuery asked{query.data(), 0, 130, out.data()};
    AttentionScratch scratch;
    kernels().attend(rows, &asked, 1, 1.0f, &scratch);
    EXPECT_EQ(out[0], sign > 0 ? 6900.0f : -6000.0f);
  }
}

INSTANTIATE_TEST_SUITE_P(Variants, AttentionKernelsTest,
                         testing::Range(size_t{0}, AllAttentionKernels().size()));

}  // namespace
}  // namespace expertmesh::decoder
