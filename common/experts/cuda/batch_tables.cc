#include "common/experts/cuda/batch_tables.h"

#include <algorithm>

#include "common/experts/cuda/cuda_expert.h"

namespace expertmesh::experts {

void BatchTables::Build(const GroupedBatch& batch, size_t begin, size_t end, uint32_t wide_rows) {
  const uint32_t first = batch.row_begin[begin];
  groups_.Build(batch.experts.subspan(first, batch.row_begin[end] - first));
  experts.clear();
  most_up_rows = 0;
  most_down_inner = 0;
  for (const GroupByExpert::Group& group : groups()) {
    experts.push_back(static_cast<const CudaExpert*>(group.expert)->on_device());
    most_up_rows = std::max(most_up_rows, experts.back().up.rows);
    most_down_inner = std::max(most_down_inner, experts.back().down.inner);
  }
  AddTiles(wide_rows);
  FillRows(batch, begin, end);
}

void BatchTables::AddTiles(uint32_t wide_rows) {
  narrow.clear();
  wide.clear();
  most_wide_rows = 0;
  for (uint32_t expert = 0; expert < experts.size(); ++expert) {
    const GroupByExpert::Group& group = groups()[expert];
    const bool is_narrow = wide_rows == 0 || group.count <= kNarrowRows;
    const uint32_t most = is_narrow ? kNarrowRows : wide_rows;
    for (uint32_t row = 0; row < group.count; row += most) {
      (is_narrow ? narrow : wide)
          .push_back({expert, group.begin + row, std::min(most, group.count - row)});
    }
    if (!is_narrow) {
      most_wide_rows = std::max(most_wide_rows, std::min(most, group.count));
    }
  }
}

uint32_t BatchTables::HiddenRow(uint32_t row) {
  if (row >= place_of_hidden_.size()) {
    place_of_hidden_.resize(size_t{row} + 1, 0);
  }
  if (place_of_hidden_[row] == 0) {
    hidden_rows.push_back(row);
    place_of_hidden_[row] = static_cast<uint32_t>(hidden_rows.size());
  }
  return place_of_hidden_[row] - 1;
}

void BatchTables::FillRows(const GroupedBatch& batch, size_t begin, size_t end) {
  const uint32_t first = batch.row_begin[begin];
  const size_t assignments = batch.row_begin[end] - first;
  // Per assignment, before they are sorted.
  terms.resize(assignments);
  for (uint32_t expert = 0; expert < experts.size(); ++expert) {
    const GroupByExpert::Group& group = groups()[expert];
    for (uint32_t position = group.begin; position < group.begin + group.count; ++position) {
      const uint32_t a = groups_.order()[position];
      terms[a] = {position, expert,
                  batch.apply == ApplyWeight::kOutput ? batch.weights[first + a] : 1.0f};
    }
  }
  row_of.resize(assignments);
  scale.resize(batch.apply == ApplyWeight::kInput ? assignments : 0);
  row_begin.assign(1, 0);
  hidden_rows.clear();
  for (size_t row = begin; row < end; ++row) {
    const uint32_t from =
        batch.hidden_row_of.empty() ? static_cast<uint32_t>(row) : batch.hidden_row_of[row];
    for (uint32_t a = batch.row_begin[row] - first; a < batch.row_begin[row + 1] - first; ++a) {
      const uint32_t position = terms[a].position;
      row_of[position] = HiddenRow(from);
      if (!scale.empty()) {
        scale[position] = batch.weights[first + a];
      }
    }
    row_begin.push_back(batch.row_begin[row + 1] - first);
  }
  for (const uint32_t row : hidden_rows) {
    place_of_hidden_[row] = 0;
  }
}

}  // namespace expertmesh::experts
