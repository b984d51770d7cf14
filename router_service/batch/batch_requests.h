// The requests of one batch, and which of its rows are whose.
#ifndef EXPERTMESH_ROUTER_SERVICE_BATCH_BATCH_REQUESTS_H_
#define EXPERTMESH_ROUTER_SERVICE_BATCH_BATCH_REQUESTS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "router_service/batch/forward_job.h"

namespace expertmesh::batch {

// Requests follow each other: the rows of one are [first_row(i), first_row(i) + its rows). Constant
// between Assign and Clear, and thread-safe then.
class BatchRequests {
 public:
  // Takes `jobs`, which are not empty, and leaves memory in their place.
  void Assign(std::vector<ForwardJobPtr>* jobs);
  // Keeps memory.
  void Clear();

  const std::vector<ForwardJobPtr>& jobs() const { return jobs_; }
  uint32_t rows() const { return rows_; }
  uint32_t first_row(size_t request) const { return first_row_[request]; }
  size_t RequestOfRow(uint32_t row) const;

  bool AllAnswered() const;
  // Some request with one of these rows still waits for its answer.
  bool Wants(absl::Span<const uint32_t> rows) const;
  // Latest deadline of those that wait; InfiniteFuture when one has none, `now` when none waits.
  absl::Time LatestDeadline(absl::Time now) const;

  // Answers all with this error, which `stage` had.
  void FailAll(const absl::Status& status, absl::string_view stage) const;
  // Answers those with one of these rows.
  void FailRows(absl::Span<const uint32_t> rows, const absl::Status& status) const;

  size_t MemoryBytes() const;

 private:
  std::vector<ForwardJobPtr> jobs_;
  std::vector<uint32_t> first_row_;
  uint32_t rows_ = 0;
};

}  // namespace expertmesh::batch

#endif  // EXPERTMESH_ROUTER_SERVICE_BATCH_BATCH_REQUESTS_H_
