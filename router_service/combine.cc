#include "router_service/combine.h"

#include <algorithm>

namespace expertmesh {
namespace {

void AddRow(const float* source, size_t count, float* target) {
  for (size_t i = 0; i < count; ++i) {
    target[i] += source[i];
  }
}

}  // namespace

void Combine(absl::Span<const Contribution> contributions, const float* shared, size_t rows,
             size_t d_model, float* output) {
  std::fill_n(output, rows * d_model, 0.0f);
  for (const Contribution& contribution : contributions) {
    for (size_t i = 0; i < contribution.rows.size(); ++i) {
      AddRow(contribution.partials + i * d_model, d_model, output + contribution.rows[i] * d_model);
    }
  }
  if (shared != nullptr) {
    AddRow(shared, rows * d_model, output);
  }
}

}  // namespace expertmesh
