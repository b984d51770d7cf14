#include "common/experts/matmul.h"

#include "common/base/check.h"
#include "common/matmul/panel_product.h"

namespace expertmesh::experts {
namespace {

// Narrower panels cost more calls than they win.
constexpr size_t kMinPanelColumns = 256;
constexpr size_t kMaxPanels = 64;
constexpr size_t kLine = 64;

template <typename Element>
matmul::PanelProduct<Element> ProductOf(const MatmulShape& shape, const MatmulShape::Split& split,
                                        size_t rows, const uint8_t* x, const uint8_t* panel,
                                        float* y) {
  return {reinterpret_cast<const Element*>(x),
          shape.x_row_bytes() / sizeof(Element),
          rows,
          shape.inner(),
          split.columns,
          reinterpret_cast<const Element*>(panel),
          y,
          split.columns};
}

}  // namespace

MatmulShape::MatmulShape(Dtype dtype, size_t inner, size_t columns, bool tiles)
    : dtype_(dtype),
      inner_(inner),
      columns_(columns),
      tiles_(tiles && dtype == Dtype::kBF16),
      // Rows at multiples of 4 KiB would push each other out of the level 1 cache.
      x_row_bytes_(inner * BytesOf(dtype) + kLine) {
  EXPERTMESH_CHECK(dtype == Dtype::kF32 || dtype == Dtype::kBF16);
  EXPERTMESH_CHECK(inner > 0 && inner % kInnerStep == 0);
  EXPERTMESH_CHECK(columns > 0 && columns % kColumnStep == 0);
  const size_t blocks = columns / kColumnStep;
  for (size_t panels = 1; panels <= kMaxPanels; ++panels) {
    if (panels == 1 || (blocks % panels == 0 && columns / panels >= kMinPanelColumns)) {
      splits_.push_back({panels, columns / panels});
    }
  }
}

void MatmulShape::PackPanel(const Split& split, const void* source, void* packed) const {
  if (tiles_) {
    matmul::PackTiles(static_cast<const uint16_t*>(source), split.columns, inner_,
                      static_cast<uint8_t*>(packed));
  } else if (dtype_ == Dtype::kBF16) {
    matmul::PackPanels(static_cast<const uint16_t*>(source), split.columns, inner_, inner_,
                       static_cast<uint16_t*>(packed));
  } else {
    matmul::PackPanels(static_cast<const float*>(source), split.columns, inner_, inner_,
                       static_cast<float*>(packed));
  }
}

void MatmulRunner::Run(const MatmulShape& shape, const MatmulShape::Split& split, size_t rows,
                       const uint8_t* x, const uint8_t* panel, float* y) {
  if (shape.tiles()) {
    matmul::TileProduct{x, shape.x_row_bytes(), rows, shape.inner(), split.columns, panel, y}.Run();
  } else if (shape.dtype() == Dtype::kBF16) {
    RunPanels(ProductOf<uint16_t>(shape, split, rows, x, panel, y), &widened_);
  } else {
    RunPanels(ProductOf<float>(shape, split, rows, x, panel, y));
  }
}

}  // namespace expertmesh::experts
