// Random matrices stored in every way that a checkpoint may store them, next to the values that
// they stand for, told by the formats' definitions.
#ifndef EXPERTMESH_TESTS_UNIT_COMMON_TENSOR_STORED_MATRIX_H_
#define EXPERTMESH_TESTS_UNIT_COMMON_TENSOR_STORED_MATRIX_H_

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/tensor/dtype.h"
#include "common/tensor/matrix_view.h"

namespace expertmesh {

inline float RoundTo(Dtype dtype, float value) {
  return dtype == Dtype::kBF16  ? FloatFromBF16(BF16FromFloat(value))
         : dtype == Dtype::kF16 ? FloatFromF16(F16FromFloat(value))
                                : value;
}

// `count` values around 0, rounded to `dtype`.
inline std::vector<float> RandomValues(std::mt19937& random, size_t count, float spread,
                                       Dtype dtype) {
  std::uniform_real_distribution<float> uniform(-spread, spread);
  std::vector<float> values(count);
  for (float& value : values) {
    value = RoundTo(dtype, uniform(random));
  }
  return values;
}

// How matrices are stored.
struct Storage {
  Dtype type = Dtype::kF32;
  // kF8E4M3 and kF4 have scales, the other types none.
  Dtype scale_type = Dtype::kF32;
  size_t block_rows = 1;
  size_t block_cols = 1;
  // Columns are the outer dimension ("in x out").
  bool transposed = false;
  // Elements from one row (transposed: column) to the next but one lie between: rows of two
  // matrices in turns.
  bool in_turns = false;
  // Elements of padding after each row (transposed: column).
  size_t gap = 0;

  static Storage Plain(Dtype type) { return {type, Dtype::kF32, 1, 1, false, false, 0}; }
  static Storage F8(Dtype scale_type) {
    return {Dtype::kF8E4M3, scale_type, 128, 128, false, false, 0};
  }
  static Storage F4() { return {Dtype::kF4, Dtype::kF8E8M0, 1, 32, false, false, 0}; }
  Storage Transposed(size_t gap_elements) const {
    Storage storage = *this;
    storage.transposed = true;
    storage.gap = gap_elements;
    return storage;
  }
  Storage InTurns() const {
    Storage storage = *this;
    storage.in_turns = true;
    return storage;
  }
  friend bool operator==(const Storage&, const Storage&) = default;

  bool quantised() const { return type == Dtype::kF8E4M3 || type == Dtype::kF4; }
};

inline std::ostream& operator<<(std::ostream& os, const Storage& s) {
  return os << std::string(NameOf(s.type)) << " scales " << std::string(NameOf(s.scale_type))
            << (s.transposed ? " transposed" : "") << (s.in_turns ? " in turns" : "");
}

// A matrix and its view. Copies have views of their own.
class StoredMatrix {
 public:
  StoredMatrix() = default;
  StoredMatrix(std::mt19937& random, size_t rows, size_t cols, float spread, const Storage& storage)
      : storage_(storage), rows_(rows), cols_(cols) {
    const size_t inner = (storage.transposed ? rows : cols) + storage.gap;
    const size_t outer = storage.transposed ? cols : rows;
    stride_ = (storage.in_turns ? 2 : 1) * inner;
    if (storage.type == Dtype::kF4) {
      stride_ = (stride_ + 1) / 2 * 2;
    }
    // What is not part of the matrix is not zero either.
    bytes_.assign(kStart + (outer * stride_ * BitsOf(storage.type) + 7) / 8, 0x5a);
    values.resize(rows * cols);
    MakeScales(random, spread);
    for (size_t r = 0; r < rows; ++r) {
      for (size_t c = 0; c < cols; ++c) {
        values[r * cols + c] = storage.quantised() ? PutCode(random, r, c) * ScaleAt(r, c)
                                                   : PutValue(random, r, c, spread);
      }
    }
  }

  MatrixView view() const {
    if (values.empty()) {
      return {};
    }
    MatrixView view;
    view.data = bytes_.data() + kStart;
    view.dtype = storage_.type;
    view.rows = rows_;
    view.cols = cols_;
    view.row_stride = storage_.transposed ? 1 : stride_;
    view.col_stride = storage_.transposed ? stride_ : 1;
    if (storage_.quantised()) {
      view.scales = {scale_bytes_.data() + 1, storage_.scale_type, storage_.block_rows,
                     storage_.block_cols, scale_stride()};
    }
    return view;
  }

  // [rows, cols], what the matrix stands for.
  std::vector<float> values;

 private:
  // Nothing is aligned in a checkpoint.
  static constexpr size_t kStart = 3;

  size_t scale_stride() const {
    return (storage_.in_turns ? 2 : 1) * ((cols_ + storage_.block_cols - 1) / storage_.block_cols);
  }
  size_t Element(size_t r, size_t c) const {
    return storage_.transposed ? c * stride_ + r : r * stride_ + c;
  }

  void MakeScales(std::mt19937& random, float spread) {
    if (!storage_.quantised()) {
      return;
    }
    const size_t count = (rows_ + storage_.block_rows - 1) / storage_.block_rows * scale_stride();
    // Values of the format reach about 448, or 6.
    const float unit = spread / (storage_.type == Dtype::kF4 ? 4.0f : 300.0f);
    for (size_t i = 0; i < count; ++i) {
      if (storage_.scale_type == Dtype::kF8E8M0) {
        const int exponent = std::ilogb(unit) - static_cast<int>(random() % 3);
        scales_.push_back(std::ldexp(1.0f, exponent));
        scale_bytes_.push_back(static_cast<uint8_t>(exponent + 127));
      } else {
        scales_.push_back(RoundTo(storage_.scale_type,
                                  unit * (0.3f + static_cast<float>(random() % 1000) / 1000.0f)));
        uint8_t bytes[sizeof(float)];
        ConvertElements(Dtype::kF32, &scales_.back(), storage_.scale_type, bytes, 1);
        scale_bytes_.insert(scale_bytes_.end(), bytes, bytes + BytesOf(storage_.scale_type));
      }
    }
    scale_bytes_.insert(scale_bytes_.begin(), 0x5a);
  }

  float ScaleAt(size_t r, size_t c) const {
    return scales_[r / storage_.block_rows * scale_stride() + c / storage_.block_cols];
  }

  float PutValue(std::mt19937& random, size_t r, size_t c, float spread) {
    const float value = RandomValues(random, 1, spread, storage_.type)[0];
    ConvertElements(Dtype::kF32, &value, storage_.type,
                    bytes_.data() + kStart + Element(r, c) * BytesOf(storage_.type), 1);
    return value;
  }

  // OCP: E4M3 has bias 7 and NaN in place of the largest value, E2M1 has bias 1.
  float PutCode(std::mt19937& random, size_t r, size_t c) {
    const size_t element = Element(r, c);
    if (storage_.type == Dtype::kF8E4M3) {
      uint8_t code = static_cast<uint8_t>(random());
      code = (code & 0x7fu) == 0x7fu ? 0 : code;
      bytes_[kStart + element] = code;
      const int exponent = code >> 3 & 15;
      const float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(code & 7), -9)
                                            : std::ldexp(1.0f + (code & 7) / 8.0f, exponent - 7);
      return code < 128 ? magnitude : -magnitude;
    }
    const uint8_t code = static_cast<uint8_t>(random() % 16);
    uint8_t& byte = bytes_[kStart + element / 2];
    byte = element % 2 == 0 ? static_cast<uint8_t>((byte & 0xf0u) | code)
                            : static_cast<uint8_t>((byte & 0x0fu) | code << 4);
    const int exponent = code >> 1 & 3;
    const float magnitude = exponent == 0 ? 0.5f * static_cast<float>(code & 1)
                                          : std::ldexp(1.0f + (code & 1) / 2.0f, exponent - 1);
    return code < 8 ? magnitude : -magnitude;
  }

  Storage storage_;
  size_t rows_ = 0;
  size_t cols_ = 0;
  size_t stride_ = 0;
  std::vector<uint8_t> bytes_;
  std::vector<float> scales_;
  std::vector<uint8_t> scale_bytes_;
};

}  // namespace expertmesh

#endif  // EXPERTMESH_TESTS_UNIT_COMMON_TENSOR_STORED_MATRIX_H_
