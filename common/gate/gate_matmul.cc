#include "common/gate/gate_matmul.h"

#include <algorithm>

#include "common/base/check.h"
#include "common/matmul/panel_product.h"
#include "common/matmul/tile_product.h"
#include "common/tensor/dtype.h"

namespace expertmesh::gate {

std::unique_ptr<const GateMatmul> GateMatmul::Create(const float* weights, size_t outputs,
                                                     size_t inputs) {
  EXPERTMESH_CHECK(outputs > 0 && inputs > 0);
  std::unique_ptr<GateMatmul> product(new GateMatmul(outputs, inputs));
  product->panels_.Resize(matmul::PackedPanelElements(outputs, inputs) * sizeof(float));
  matmul::PackPanels(weights, outputs, inputs, inputs, product->panels_.as<float>());
  product->tiles_ = GateTiles::Create(weights, outputs, inputs);
  return product;
}

size_t GateMatmul::bytes() const {
  return panels_.size() + (tiles_ == nullptr ? 0 : tiles_->bytes());
}

void GateMatmul::RunBF16(const uint8_t* x, size_t rows, float* y,
                         GateMatmulScratch* scratch) const {
  EXPERTMESH_CHECK(TakesBF16());
  tiles_->Run(x, rows, y, &scratch->tiles);
}

void GateMatmul::Run(const float* x, size_t rows, float* y, GateMatmulScratch* scratch) const {
  const auto is_bf16 = [&](size_t row) {
    return TakesBF16() && HoldsBF16({x + row * inputs_, inputs_});
  };
  for (size_t begin = 0, end = 0; begin < rows; begin = end) {
    const bool narrow = is_bf16(begin);
    for (end = begin + 1; end < rows && is_bf16(end) == narrow;) {
      ++end;
    }
    const float* const from = x + begin * inputs_;
    float* const to = y + begin * outputs_;
    if (!narrow) {
      RunPanels(from, end - begin, to, scratch);
      continue;
    }
    const size_t size = (end - begin) * inputs_;
    scratch->narrowed.Resize(size * sizeof(uint16_t));
    ConvertElements(Dtype::kF32, from, Dtype::kBF16, scratch->narrowed.data(), size);
    RunBF16(scratch->narrowed.data(), end - begin, to, scratch);
  }
}

void GateMatmul::RunPanels(const float* x, size_t rows, float* y,
                           GateMatmulScratch* scratch) const {
  const size_t columns = matmul::RoundUp(outputs_, matmul::kPanelColumns);
  float* to = y;
  if (columns != outputs_) {
    scratch->padded.Resize(rows * columns * sizeof(float));
    to = scratch->padded.as<float>();
  }
  matmul::RunPanels(matmul::PanelProduct<float>{x, inputs_, rows, inputs_, columns,
                                                panels_.as<float>(), to, columns});
  if (columns != outputs_) {
    for (size_t row = 0; row < rows; ++row) {
      std::copy_n(to + row * columns, outputs_, y + row * outputs_);
    }
  }
}

}  // namespace expertmesh::gate
