#include "expert_service/stream_table.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace expertmesh::node {

StreamId StreamTable::Open(std::shared_ptr<FrameSink> replies) {
  const StreamId id = next_++;
  streams_[id].replies = std::move(replies);
  return id;
}

std::shared_ptr<FrameSink> StreamTable::Close(StreamId stream) {
  const auto found = streams_.find(stream);
  if (found == streams_.end()) {
    return nullptr;
  }
  std::shared_ptr<FrameSink> replies = std::move(found->second.replies);
  streams_.erase(found);
  return replies;
}

std::shared_ptr<FrameSink> StreamTable::RepliesOf(StreamId stream) const {
  const auto found = streams_.find(stream);
  return found == streams_.end() ? nullptr : found->second.replies;
}

absl::Status StreamTable::AddBatch(StreamId stream, uint64_t batch_id) {
  const auto found = streams_.find(stream);
  EXPERTMESH_CHECK(found != streams_.end());
  if (!found->second.in_flight.insert(batch_id).second) {
    return absl::InvalidArgumentError(
        absl::StrCat("batch_id ", batch_id, " is in flight on this stream already; use a new one"));
  }
  return absl::OkStatus();
}

void StreamTable::RemoveBatch(StreamId stream, uint64_t batch_id) {
  const auto found = streams_.find(stream);
  if (found != streams_.end()) {
    found->second.in_flight.erase(batch_id);
  }
}

}  // namespace expertmesh::node
