// The promise that everything above rests on: a row's bits do not depend on the rows beside it.
// Once for each way to multiply that this machine has.
#include "common/experts/matmul.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "common/tensor/aligned_buffer.h"
#include "tests/support/compare_rows.h"
#include "tests/support/random_values.h"

namespace expertmesh::experts {
namespace {

struct Way {
  std::string name;
  Dtype dtype;
  bool tiles;
};

std::vector<Way> Ways() {
  std::vector<Way> ways = {{"f32", Dtype::kF32, false}, {"bf16", Dtype::kBF16, false}};
  if (matmul::TilesAvailable()) {
    ways.push_back({"bf16_tiles", Dtype::kBF16, true});
  }
  return ways;
}

std::vector<uint8_t> Random(size_t count, Dtype dtype, uint32_t seed) {
  const std::vector<float> values = NormalValues(count, seed);
  std::vector<uint8_t> bytes(count * BytesOf(dtype));
  ConvertElements(Dtype::kF32, values.data(), dtype, bytes.data(), count);
  return bytes;
}

class MatmulTest : public testing::TestWithParam<Way> {
 protected:
  void Make(size_t inner, size_t columns) {
    shape_ =
        std::make_unique<const MatmulShape>(GetParam().dtype, inner, columns, GetParam().tiles);
    const std::vector<uint8_t> weights = Random(inner * columns, GetParam().dtype, 1);
    packed_.Resize(shape_->bytes());
    shape_->PackPanel(shape_->splits()[0], weights.data(), packed_.data());
    x_ = Random(kMaxRows * inner, GetParam().dtype, 2);
  }

  // The product of rows [first, first + count) with every panel of `split`: [count, columns].
  std::vector<float> Multiply(const MatmulShape::Split& split, size_t first, size_t count) {
    const size_t row_bytes = shape_->inner() * BytesOf(shape_->dtype());
    AlignedBuffer x(count * shape_->x_row_bytes());
    for (size_t row = 0; row < count; ++row) {
      std::memcpy(x.data() + row * shape_->x_row_bytes(), x_.data() + (first + row) * row_bytes,
                  row_bytes);
    }
    std::vector<float> y(count * shape_->columns());
    AlignedBuffer products(count * split.columns * sizeof(float));
    for (size_t panel = 0; panel < split.panels; ++panel) {
      runner_.Run(*shape_, split, count, x.data(),
                  packed_.data() + panel * shape_->PanelBytes(split), products.as<float>());
      const size_t strip = shape_->StripColumnsOf(split);
      for (size_t begin = 0; begin < split.columns; begin += strip) {
        for (size_t row = 0; row < count; ++row) {
          std::copy_n(products.as<float>() + begin * count + row * strip, strip,
                      y.data() + row * shape_->columns() + panel * split.columns + begin);
        }
      }
    }
    return y;
  }

  std::unique_ptr<const MatmulShape> shape_;
  AlignedBuffer packed_;
  std::vector<uint8_t> x_;
  MatmulRunner runner_;
};

TEST_P(MatmulTest, ARowHasTheSameBitsInAnyProduct) {
  // Sizes of real experts' products, and such at which kernels change their ways.
  for (const auto& [inner, columns] : {std::pair<size_t, size_t>{64, 64},
                                       {96, 1536},
                                       {512, 128},
                                       {768, 2048},
                                       {1056, 320},
                                       {2048, 1536}}) {
    Make(inner, columns);
    const MatmulShape::Split& whole = shape_->splits().front();
    const size_t most = kMaxRows;
    std::vector<float> alone;
    for (size_t row = 0; row < most; ++row) {
      const std::vector<float> y = Multiply(whole, row, 1);
      alone.insert(alone.end(), y.begin(), y.end());
    }
    for (const MatmulShape::Split& split : {whole, shape_->splits().back()}) {
      for (const size_t rows : {1,  2,  3,  4,  5,  6,  7,  8,  9,  12, 15,  16,  17,
                                24, 31, 32, 33, 48, 64, 73, 78, 85, 97, 128, 200, 256}) {
        const size_t first = most - rows;  // Each row in many places.
        const std::vector<float> y = Multiply(split, first, rows);
        ASSERT_TRUE(SameBits(y, absl::MakeConstSpan(alone).subspan(first * columns), columns))
            << rows << " rows of " << inner << " x " << columns << " in " << split.panels
            << " panels";
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Ways, MatmulTest, testing::ValuesIn(Ways()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace expertmesh::experts
