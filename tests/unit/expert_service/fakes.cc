#include "tests/unit/expert_service/fakes.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/telemetry/exposition.h"
#include "common/wire/message_codec.h"
#include "common/wire/status.h"
#include "common/wire/tensor_copy.h"
#include "common/wire/tensor_encode.h"
#include "common/wire/wire_dtype.h"

namespace expertmesh::node {
namespace {

TensorFrame MakeTensor(Dtype dtype, uint64_t rows, uint64_t cols,
                       const std::vector<float>& values) {
  return EncodeRows(Dtype::kF32, values.data(), rows, cols, dtype);
}

FakeCheckpointOptions CheckpointOptions() {
  FakeCheckpointOptions options;
  options.num_layers = 6;
  options.moe_layers = {1, 2, 4};
  options.d_model = kDModel;
  options.num_experts = kNumExperts;
  options.intermediate_size = kIntermediate;
  options.expert_weight = ExpertCode;
  options.fingerprint = std::string(64, 'f');
  return options;
}

}  // namespace

float ExpertCode(uint32_t layer, uint32_t expert) {
  return static_cast<float>(layer * kNumExperts + expert + 1);
}

std::shared_ptr<FakeCheckpoint> MakeCheckpoint() {
  return std::make_shared<FakeCheckpoint>(CheckpointOptions());
}

std::shared_ptr<FakeCheckpoint> MakeCheckpointWithShared(uint32_t intermediate_size) {
  FakeCheckpointOptions options = CheckpointOptions();
  options.shared_expert = true;
  options.shared_intermediate_size = intermediate_size;
  return std::make_shared<FakeCheckpoint>(options);
}

size_t TestBatch::assignments() const {
  size_t sum = 0;
  for (const std::vector<uint32_t>& row : experts) {
    sum += row.size();
  }
  return sum;
}

TestBatch RandomBatch(std::mt19937* random, uint64_t batch_id, uint32_t layer, size_t rows,
                      const std::vector<uint32_t>& allowed) {
  const auto below = [random](size_t limit) { return (*random)() % limit; };
  TestBatch batch;
  batch.batch_id = batch_id;
  batch.layer = layer;
  for (size_t row = 0; row < rows; ++row) {
    const size_t count = 1 + below(std::min<size_t>(4, allowed.size()));
    std::vector<uint32_t> experts = allowed;
    std::shuffle(experts.begin(), experts.end(), *random);
    experts.resize(count);
    batch.experts.push_back(experts);
    std::vector<float> weights;
    for (size_t i = 0; i < count; ++i) {
      weights.push_back(static_cast<float>(1 << below(3)));
    }
    batch.weights.push_back(weights);
    std::vector<float> x;
    for (uint32_t column = 0; column < kDModel; ++column) {
      x.push_back(static_cast<float>(below(256)));  // Exact in BF16 and F16 too.
    }
    batch.hidden_states.push_back(x);
  }
  return batch;
}

internal::v1::ComputeRequest MakeRequest(const TestBatch& batch, size_t first, size_t count) {
  internal::v1::ComputeRequest request;
  request.set_batch_id(batch.batch_id);
  request.set_layer(batch.layer);
  request.set_total_rows(static_cast<uint32_t>(batch.rows()));
  request.set_first_row(static_cast<uint32_t>(first));
  if (batch.partials_dtype != Dtype::kF32) {
    request.set_partials_dtype(ToWire(batch.partials_dtype));
  }
  request.set_per_assignment(batch.per_assignment);
  if (batch.has_timeout) {
    request.set_timeout_us(batch.timeout_us);
  }
  for (size_t row = first; row < first + count; ++row) {
    request.add_assignments_per_row(static_cast<uint32_t>(batch.experts[row].size()));
    for (const uint32_t expert : batch.experts[row]) {
      request.add_expert_ids(expert);
    }
    for (const float weight : batch.weights[row]) {
      request.add_expert_weights(weight);
    }
  }
  return request;
}

Frame MakeFrame(const TestBatch& batch, size_t first, size_t count) {
  std::vector<float> values;
  for (size_t row = first; row < first + count; ++row) {
    values.insert(values.end(), batch.hidden_states[row].begin(), batch.hidden_states[row].end());
  }
  const TensorFrame tensor = MakeTensor(batch.dtype, count, kDModel, values);
  return EncodeTensorMessage(MakeRequest(batch, first, count), &tensor);
}

std::vector<Frame> MakeFrames(const TestBatch& batch, size_t rows_per_frame) {
  std::vector<Frame> frames;
  for (size_t row = 0; row < batch.rows(); row += rows_per_frame) {
    frames.push_back(MakeFrame(batch, row, std::min(rows_per_frame, batch.rows() - row)));
  }
  return frames;
}

Frame MakeFrame(const internal::v1::ComputeRequest& message, uint64_t rows, uint64_t cols) {
  const TensorFrame tensor =
      MakeTensor(Dtype::kF32, rows, cols, std::vector<float>(rows * cols, 0.0f));
  return EncodeTensorMessage(message, &tensor);
}

std::vector<float> Expected(const TestBatch& batch, IntermediateSlice slice) {
  std::vector<float> result;
  for (size_t row = 0; row < batch.rows(); ++row) {
    const size_t first = result.size();
    for (size_t a = 0; a < batch.experts[row].size(); ++a) {
      const size_t begin = batch.per_assignment ? result.size() : first;
      result.resize(begin + kDModel);
      for (uint32_t column = 0; column < kDModel; ++column) {
        result[begin + column] +=
            batch.weights[row][a] * FakeExpert(ExpertCode(batch.layer, batch.experts[row][a]),
                                               slice, batch.hidden_states[row][column], column);
      }
    }
  }
  return result;
}

absl::Status FakeSink::Send(Frame frame) {
  absl::StatusOr<TensorMessage<internal::v1::ComputeResponse>> decoded =
      DecodeTensorMessage<internal::v1::ComputeResponse>(frame);
  EXPERTMESH_CHECK(decoded.ok());
  const internal::v1::ComputeResponse& message = decoded->message;
  const absl::MutexLock lock(&mutex_);
  if (gone_ || failing_) {
    return absl::UnavailableError("the stream is gone");
  }
  Answer& answer = answers_[message.batch_id()];
  ++answer.frames;
  if (message.status().code() != 0) {
    answer.malformed |= answer.frames > 1 || decoded->has_tensor;
    answer.status = FromWire(message.status());
    return absl::OkStatus();
  }
  answer.malformed |= !answer.status.ok() || !decoded->has_tensor ||
                      message.first_row() * kDModel != answer.partials.size();
  const size_t old = answer.partials.size();
  answer.partials.resize(old + decoded->tensor.rows * decoded->tensor.cols);
  DecodeRows(decoded->tensor, Dtype::kF32, answer.partials.data() + old);
  answer.dtype = decoded->tensor.dtype;
  answer.queue_us = message.queue_us();
  answer.compute_us = message.compute_us();
  return absl::OkStatus();
}

bool FakeSink::IsGone() const {
  const absl::MutexLock lock(&mutex_);
  return gone_;
}

void FakeSink::Break() {
  const absl::MutexLock lock(&mutex_);
  gone_ = true;
}

void FakeSink::BreakUnnoticed() {
  const absl::MutexLock lock(&mutex_);
  failing_ = true;
}

FakeSink::Answer FakeSink::Await(uint64_t batch_id, size_t rows) {
  absl::MutexLock lock(&mutex_);
  const auto there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const auto found = answers_.find(batch_id);
    return found != answers_.end() &&
           (!found->second.status.ok() || found->second.partials.size() >= rows * kDModel);
  };
  mutex_.Await(absl::Condition(&there));
  return answers_[batch_id];
}

FakeSink::Answer FakeSink::Get(uint64_t batch_id) const {
  const absl::MutexLock lock(&mutex_);
  const auto found = answers_.find(batch_id);
  return found == answers_.end() ? Answer() : found->second;
}

size_t FakeSink::answers() const {
  const absl::MutexLock lock(&mutex_);
  return answers_.size();
}

std::string MetricValue(const prometheus::Collectable& metrics, const std::string& series) {
  const std::string text =
      absl::StrCat("\n", telemetry::Expose(metrics.Collect(), telemetry::Exposition::kText));
  const size_t found = text.find(absl::StrCat("\n", series, " "));
  if (found == std::string::npos) {
    return "absent";
  }
  const size_t begin = found + series.size() + 2;
  return text.substr(begin, text.find('\n', begin) - begin);
}

}  // namespace expertmesh::node
