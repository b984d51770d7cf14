#include "expert_service/reply_sender.h"

#include <utility>
#include <vector>

#include "common/wire/tensor_encode.h"

namespace expertmesh::node {

bool ReplySender::SendPartials(const QueuedBatch& queued, const MergedBatch& merged,
                               size_t first_row) const {
  const ReceivedBatch& batch = *queued.batch;
  metrics_->RecordQueueing(batch.times.queueing());
  PartialRows answer;
  answer.batch_id = batch.batch_id;
  answer.rows = batch.answer_rows();
  answer.d_model = merged.d_model();
  answer.values = merged.partials()->as<float>() + first_row * answer.d_model;
  answer.owner = merged.partials();
  answer.times = batch.times;
  answer.merge = batch.merge;
  answer.dtype = batch.partials_dtype;
  answer.checksums = batch.checksums;
  RecordEncodingError(batch.layer, answer);
  std::vector<size_t> widened;
  std::vector<Frame> frames = EncodePartials(answer, max_frame_bytes_, &widened);
  if (!widened.empty()) {
    const float* const first = answer.values + widened.front() * answer.d_model;
    metrics_->CountWidened(batch.layer, widened.size(),
                           LargestFinite(Dtype::kF32, first, answer.d_model), answer.dtype);
  }
  for (Frame& frame : frames) {
    if (!queued.replies->Send(std::move(frame)).ok()) {
      metrics_->CountDropped();
      return false;
    }
  }
  return true;
}

// Looks at one row only: that is cheap, and over many batches each row has its turn.
void ReplySender::RecordEncodingError(uint32_t layer, const PartialRows& answer) const {
  if (!IsLossy(Dtype::kF32, answer.dtype)) {
    return;
  }
  const float* const row = answer.values + answer.batch_id % answer.rows * answer.d_model;
  metrics_->RecordEncodingError(layer,
                                EncodingError(Dtype::kF32, row, answer.d_model, answer.dtype));
}

void ReplySender::SendError(FrameSink& replies, uint64_t batch_id,
                            const absl::Status& status) const {
  metrics_->CountRejected(status.code());
  // A stream that is gone no longer wants its answer.
  (void)replies.Send(EncodeError(batch_id, status));
}

}  // namespace expertmesh::node
