#include "common/experts/check_batch.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace expertmesh::experts {

absl::Status CheckBatch(const GroupedBatch& batch) {
  if (batch.row_begin.size() != batch.rows + 1 || batch.row_begin.front() != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("row_begin must have rows + 1 = ", batch.rows + 1, " entries from 0 but has ",
                     batch.row_begin.size()));
  }
  if (!std::is_sorted(batch.row_begin.begin(), batch.row_begin.end())) {
    return absl::InvalidArgumentError("row_begin must not decrease");
  }
  if (!batch.hidden_row_of.empty() && batch.hidden_row_of.size() != batch.rows) {
    return absl::InvalidArgumentError(
        absl::StrCat("hidden_row_of must be empty or have rows = ", batch.rows, " entries but has ",
                     batch.hidden_row_of.size()));
  }
  const size_t assignments = batch.row_begin.back();
  if (batch.experts.size() != assignments || batch.weights.size() != assignments) {
    return absl::InvalidArgumentError(
        absl::StrCat("row_begin speaks of ", assignments, " assignments, but there are ",
                     batch.experts.size(), " experts and ", batch.weights.size(), " weights"));
  }
  if (batch.rows > 0 &&
      (batch.d_model == 0 || batch.hidden_states == nullptr || batch.partials == nullptr)) {
    return absl::InvalidArgumentError("d_model, hidden_states and partials must be set");
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::experts
