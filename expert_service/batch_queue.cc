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

void BatchQueue::Count(const ReceivedBatch& batch) {
  ++batches_;
  rows_ += batch.total_rows;
  bytes_ += batch.bytes;
}

void BatchQueue::Uncount(const ReceivedBatch& batch) {
  --batches_;
  rows_ -= batch.total_rows;
  bytes_ -= batch.bytes;
}

uint64_t BatchQueue::Park(QueuedBatch queued) {
  Count(*queued.batch);
  parked_rows_ += queued.batch->total_rows;
  parked_.emplace(next_ticket_, std::move(queued));
  return next_ticket_++;
}

std::optional<QueuedBatch> BatchQueue::Unpark(uint64_t ticket) {
  const auto found = parked_.find(ticket);
  if (found == parked_.end()) {
    return std::nullopt;
  }
  return TakeParked(found);
}

QueuedBatch BatchQueue::TakeParked(std::map<uint64_t, QueuedBatch>::iterator position) {
  QueuedBatch queued = std::move(position->second);
  parked_.erase(position);
  parked_rows_ -= queued.batch->total_rows;
  Uncount(*queued.batch);
  return queued;
}

void BatchQueue::Add(QueuedBatch queued) {
  const ReceivedBatch& batch = *queued.batch;
  Count(batch);
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
  for (auto it = parked_.begin(); it != parked_.end();) {
    const auto next = std::next(it);
    if (it->second.stream == stream) {
      taken.push_back(TakeParked(it));
    }
    it = next;
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
  while (!parked_.empty()) {
    taken.push_back(TakeParked(parked_.begin()));
  }
  return taken;
}

QueuedBatch BatchQueue::TakeFrom(Line* line, Line::iterator position) {
  QueuedBatch queued = std::move(position->second);
  line->erase(position);
  Uncount(*queued.batch);
  return queued;
}

}  // namespace expertmesh::node
