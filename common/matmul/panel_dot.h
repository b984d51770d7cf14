// Products of bf16 panels by AVX512_BF16's own instruction. Private to common/matmul.
#ifndef EXPERTMESH_COMMON_MATMUL_PANEL_DOT_H_
#define EXPERTMESH_COMMON_MATMUL_PANEL_DOT_H_

#include <cstdint>

#include "common/matmul/panel_product.h"

namespace expertmesh::matmul {

// True where this process may use the instruction.
bool DotAvailable();

// Only where DotAvailable().
void RunDot(const PanelProduct<uint16_t>& product);

}  // namespace expertmesh::matmul

#endif  // EXPERTMESH_COMMON_MATMUL_PANEL_DOT_H_
