#include "expert_service/batch_queue.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace expertmesh::node {

absl::Status BatchQueue::CheckRoom(const ReceivedBatch& batch) const {
  if (rows_ + batch.total_rows > limits_.max_queue_rows) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "queue full: ", rows_, " rows wait, ", batch.total_rows, " more pass max_queue_rows ",
        limits_.max_queue_rows, "; send less, or elsewhere"));
  }
  if (bytes_ + batch.bytes > limits_.max_queue_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "queue full: ", bytes_, " bytes wait, ", batch.bytes, " more pass max_queue_bytes ",
        limits_.max_queue_bytes, "; send less, or elsewhere"));
  }
  return absl::OkStatus();
}

void BatchQueue::Add(QueuedBatch queued) {
  const ReceivedBatch& batch = *queued.batch;
  ++batches_;
  rows_ += batch.total_rows;
  bytes_ += batch.bytes;
  const Key key(std::min(batch.deadline, batch.times.complete + limits_.deadline_window),
                next_arrival_++);
  lines_[batch.layer].emplace(key, std::move(queued));
}

void BatchQueue::TakeGroup(absl::Time now, BatchGroup* group) {
  const auto most_urgent =
      std::min_element(lines_.begin(), lines_.end(), [](const auto& a, const auto& b) {
        return a.second.begin()->first < b.second.begin()->first;
      });
  EXPERTMESH_CHECK(most_urgent != lines_.end());
  Line& line = most_urgent->second;
  uint64_t rows = 0;
  while (!line.empty()) {
    const ReceivedBatch& head = *line.begin()->second.batch;
    if (head.deadline <= now) {
      group->expired.push_back(TakeFrom(&line, line.begin()));
      continue;
    }
    if (!group->batches.empty() && rows + head.answer_rows() > limits_.max_group_rows) {
      break;
    }
    rows += head.answer_rows();
    group->batches.push_back(TakeFrom(&line, line.begin()));
  }
  if (line.empty()) {
    lines_.erase(most_urgent);
  }
}

std::vector<QueuedBatch> BatchQueue::TakeStream(StreamId stream) {
  std::vector<QueuedBatch> taken;
  for (auto layer = lines_.begin(); layer != lines_.end();) {
    Line& line = layer->second;
    for (auto it = line.begin(); it != line.end();) {
      const auto next = std::next(it);
      if (it->second.stream == stream) {
        taken.push_back(TakeFrom(&line, it));
      }
      it = next;
    }
    layer = line.empty() ? lines_.erase(layer) : std::next(layer);
  }
  return taken;
}

std::vector<QueuedBatch> BatchQueue::TakeAll() {
  std::vector<QueuedBatch> taken;
  for (auto& [layer, line] : lines_) {
    while (!line.empty()) {
      taken.push_back(TakeFrom(&line, line.begin()));
    }
  }
  lines_.clear();
  return taken;
}

QueuedBatch BatchQueue::TakeFrom(Line* line, Line::iterator position) {
  QueuedBatch queued = std::move(position->second);
  line->erase(position);
  --batches_;
  rows_ -= queued.batch->total_rows;
  bytes_ -= queued.batch->bytes;
  return queued;
}

}  // namespace expertmesh::node
