// What kernels need to know of a batch, or of some rows of one, worked out by the host. Private to
// the room.
#ifndef EXPERTMESH_COMMON_EXPERTS_CUDA_BATCH_TABLES_H_
#define EXPERTMESH_COMMON_EXPERTS_CUDA_BATCH_TABLES_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/experts/backend.h"
#include "common/experts/cuda/device_types.h"
#include "common/experts/group_by_expert.h"

namespace expertmesh::experts {

// "Sorted rows" are those of all assignments, expert by expert. Keeps its memory. Not thread-safe.
class BatchTables {
 public:
  // For rows [begin, end) of `batch`, whose experts are CudaExperts. Tiles of one expert have at
  // most `wide_rows` rows when it has more than kNarrowRows; with 0, all are narrow.
  void Build(const GroupedBatch& batch, size_t begin, size_t end, uint32_t wide_rows);

  // Rows of the result.
  uint32_t rows() const { return static_cast<uint32_t>(row_begin.size() - 1); }
  uint32_t sorted_rows() const { return static_cast<uint32_t>(terms.size()); }
  absl::Span<const GroupByExpert::Group> groups() const { return groups_.groups(); }

  // Rows of the batch's hidden states that the device needs.
  std::vector<uint32_t> hidden_rows;
  // One per group.
  std::vector<DeviceExpert> experts;
  std::vector<TokenTile> narrow;
  std::vector<TokenTile> wide;
  // Rows of the largest wide tile.
  uint32_t most_wide_rows = 0;
  // Per sorted row: which of hidden_rows, and with ApplyWeight::kInput what it is multiplied by.
  std::vector<uint32_t> row_of;
  std::vector<float> scale;
  // Assignments of row r are terms[row_begin[r], row_begin[r + 1]), in slot order.
  std::vector<uint32_t> row_begin;
  std::vector<Term> terms;
  // What the widest expert has.
  uint32_t most_up_rows = 0;
  uint32_t most_down_inner = 0;

 private:
  void AddTiles(uint32_t wide_rows);
  void FillRows(const GroupedBatch& batch, size_t begin, size_t end);
  uint32_t HiddenRow(uint32_t row);

  GroupByExpert groups_;
  std::vector<uint32_t>
      place_of_hidden_;  // Per row of the hidden states: 1 + which of hidden_rows.
};

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_CUDA_BATCH_TABLES_H_
