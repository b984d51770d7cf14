#include <cstring>
#include <utility>

#include "client/cpp/expertmesh/client.h"
#include "client/cpp/library/forward_codec.h"
#include "common/tensor/dtype.h"

namespace expertmesh::client {

Matrix Matrix::Take(size_t rows, size_t cols, std::vector<float> values) {
  auto owner = std::make_shared<const std::vector<float>>(std::move(values));
  const absl::Span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(owner->data()),
                                        owner->size() * sizeof(float));
  return Share(Dtype::kFloat32, rows, cols, bytes, std::move(owner));
}

Matrix Matrix::Take(Dtype dtype, size_t rows, size_t cols, std::string bytes) {
  auto owner = std::make_shared<const std::string>(std::move(bytes));
  const absl::Span<const uint8_t> span(reinterpret_cast<const uint8_t*>(owner->data()),
                                       owner->size());
  return Share(dtype, rows, cols, span, std::move(owner));
}

Matrix Matrix::Share(Dtype dtype, size_t rows, size_t cols, absl::Span<const uint8_t> bytes,
                     std::shared_ptr<const void> owner) {
  Matrix matrix;
  matrix.dtype_ = dtype;
  matrix.rows_ = rows;
  matrix.cols_ = cols;
  matrix.bytes_ = bytes;
  matrix.owner_ = std::move(owner);
  return matrix;
}

Matrix Matrix::Copy(Dtype dtype, size_t rows, size_t cols, absl::Span<const uint8_t> bytes) {
  return Take(dtype, rows, cols,
              std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

std::vector<float> Matrix::ToFloats() const {
  std::vector<float> floats(bytes_.size() / BytesOf(dtype_));
  ConvertElements(ToInternal(dtype_), bytes_.data(), expertmesh::Dtype::kF32, floats.data(),
                  floats.size());
  return floats;
}

}  // namespace expertmesh::client
