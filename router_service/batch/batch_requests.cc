#include "router_service/batch/batch_requests.h"

#include <algorithm>
#include <set>

#include "common/base/status_context.h"

namespace expertmesh::batch {

void BatchRequests::Assign(std::vector<ForwardJobPtr>* jobs) {
  jobs_.swap(*jobs);
  rows_ = 0;
  for (const ForwardJobPtr& job : jobs_) {
    job->SetBatched();
    first_row_.push_back(rows_);
    rows_ += static_cast<uint32_t>(job->rows());
  }
}

void BatchRequests::Clear() {
  jobs_.clear();
  first_row_.clear();
  rows_ = 0;
}

size_t BatchRequests::RequestOfRow(uint32_t row) const {
  const auto after = std::upper_bound(first_row_.begin(), first_row_.end(), row);
  return static_cast<size_t>(after - first_row_.begin()) - 1;
}

bool BatchRequests::AllAnswered() const {
  return std::all_of(jobs_.begin(), jobs_.end(),
                     [](const ForwardJobPtr& job) { return job->answered(); });
}

bool BatchRequests::Wants(absl::Span<const uint32_t> rows) const {
  return std::any_of(rows.begin(), rows.end(),
                     [this](uint32_t row) { return !jobs_[RequestOfRow(row)]->answered(); });
}

absl::Time BatchRequests::LatestDeadline(absl::Time now) const {
  absl::Time latest = absl::InfinitePast();
  for (const ForwardJobPtr& job : jobs_) {
    if (!job->answered()) {
      latest = std::max(latest, job->deadline());
    }
  }
  return latest == absl::InfinitePast() ? now : latest;
}

void BatchRequests::FailAll(const absl::Status& status, absl::string_view stage) const {
  const absl::Status error = WithContext(stage, status);
  for (const ForwardJobPtr& job : jobs_) {
    job->Fail(error);
  }
}

void BatchRequests::FailRows(absl::Span<const uint32_t> rows, const absl::Status& status) const {
  std::set<size_t> requests;
  for (const uint32_t row : rows) {
    requests.insert(RequestOfRow(row));
  }
  for (const size_t request : requests) {
    jobs_[request]->Fail(status);
  }
}

size_t BatchRequests::MemoryBytes() const {
  return jobs_.capacity() * sizeof(ForwardJobPtr) + first_row_.capacity() * sizeof(uint32_t);
}

}  // namespace expertmesh::batch
