#include "common/gate/gate_tiles.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/matmul/tile_product.h"
#include "common/tensor/dtype.h"

namespace expertmesh::gate {

bool HoldsBF16(absl::Span<const float> values) {
  // Few enough to stop early at a row that is float32, enough for vectors.
  constexpr size_t kTogether = 64;
  constexpr uint32_t kBeyondBF16 = 0xffff;
  for (size_t begin = 0; begin < values.size(); begin += kTogether) {
    uint32_t bits = 0;
    for (const float value : values.subspan(begin, kTogether)) {
      uint32_t of_value = 0;
      std::memcpy(&of_value, &value, sizeof(value));
      bits |= of_value;
    }
    if ((bits & kBeyondBF16) != 0) {
      return false;
    }
  }
  return true;
}

std::unique_ptr<const GateTiles> GateTiles::Create(const float* weights, size_t outputs,
                                                   size_t inputs) {
  const size_t size = outputs * inputs;
  if (!matmul::TilesAvailable() || !HoldsBF16({weights, size})) {
    return nullptr;
  }
  std::unique_ptr<GateTiles> tiles(new GateTiles(outputs, inputs));
  std::vector<uint16_t> narrowed(size);
  ConvertElements(Dtype::kF32, weights, Dtype::kBF16, narrowed.data(), size);
  tiles->packed_.Resize(matmul::PackedTileBytes(outputs, inputs));
  matmul::PackTiles(narrowed.data(), outputs, inputs, tiles->packed_.data());
  return tiles;
}

void GateTiles::Run(const uint8_t* x, size_t rows, float* y, Scratch* scratch) const {
  const size_t inner = matmul::RoundUp(inputs_, matmul::kTileInner);
  const size_t columns = matmul::RoundUp(outputs_, matmul::kStripColumns);
  const size_t x_bytes = inputs_ * sizeof(uint16_t);
  const size_t padded_bytes = inner * sizeof(uint16_t);
  if (inner != inputs_) {
    scratch->x.Resize(rows * padded_bytes);
    for (size_t row = 0; row < rows; ++row) {
      uint8_t* const padded = scratch->x.data() + row * padded_bytes;
      std::memcpy(padded, x + row * x_bytes, x_bytes);
      std::memset(padded + x_bytes, 0, padded_bytes - x_bytes);
    }
    x = scratch->x.data();
  }
  scratch->y.Resize(rows * columns * sizeof(float));
  float* const strips = scratch->y.as<float>();
  matmul::TileProduct{x, padded_bytes, rows, inner, columns, packed_.data(), strips}.Run();
  for (size_t first = 0; first < outputs_; first += matmul::kStripColumns) {
    const size_t count = std::min(matmul::kStripColumns, outputs_ - first);
    for (size_t row = 0; row < rows; ++row) {
      std::copy_n(strips + first * rows + row * matmul::kStripColumns, count,
                  y + row * outputs_ + first);
    }
  }
}

}  // namespace expertmesh::gate
