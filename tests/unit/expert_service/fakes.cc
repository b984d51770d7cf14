#include "tests/unit/expert_service/fakes.h"

#include <prometheus/text_serializer.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/wire/message_codec.h"
#include "common/wire/tensor_copy.h"
#include "common/wire/tensor_encode.h"

namespace expertmesh::node {
namespace {

class FakePacked final : public experts::PackedExpert {
 public:
  FakePacked(float code, IntermediateSlice slice, size_t bytes,
             std::shared_ptr<std::atomic<int>> alive)
      : code(code), slice(slice), bytes_(bytes), alive_(std::move(alive)) {
    ++*alive_;
  }
  ~FakePacked() override { --*alive_; }
  size_t bytes() const override { return bytes_; }

  const float code;
  const IntermediateSlice slice;

 private:
  const size_t bytes_;
  const std::shared_ptr<std::atomic<int>> alive_;
};

TensorFrame MakeTensor(DType dtype, uint64_t rows, uint64_t cols,
                       const std::vector<float>& values) {
  return EncodeRows(DType::kF32, values.data(), rows, cols, dtype);
}

}  // namespace

ModelDescription FakeModel() {
  ModelDescription model;
  model.family = "fake";
  model.d_model = kDModel;
  model.num_layers = 6;
  for (const uint32_t layer : {1u, 2u, 4u}) {
    MoeLayerDescription description;
    description.layer = layer;
    description.routing.num_experts = kNumExperts;
    description.routing.top_k = 2;
    description.expert.d_model = kDModel;
    description.expert.intermediate_size = kIntermediate;
    model.layers.push_back(description);
  }
  return model;
}

float ExpertCode(uint32_t layer, uint32_t expert) {
  return static_cast<float>(layer * kNumExperts + expert + 1);
}

FakeCheckpoint::FakeCheckpoint() : model_(FakeModel()) {
  for (const MoeLayerDescription& layer : model_.layers) {
    for (uint32_t expert = 0; expert < kNumExperts; ++expert) {
      weights_[{layer.layer, expert}].assign(kDModel * kIntermediate,
                                             ExpertCode(layer.layer, expert));
    }
  }
}

absl::StatusOr<GateWeights> FakeCheckpoint::Gate(uint32_t) const {
  return absl::NotFoundError("no gates here");
}

absl::StatusOr<ExpertWeights> FakeCheckpoint::Expert(uint32_t layer, uint32_t expert) const {
  const auto found = weights_.find({layer, expert});
  if (found == weights_.end()) {
    return absl::NotFoundError("no such expert");
  }
  if (layer == broken_layer_) {
    return absl::DataLossError("model.safetensors is truncated");
  }
  const float* data = found->second.data();
  ExpertWeights weights;
  weights.gate = MatrixView::RowMajor(data, DType::kF32, kIntermediate, kDModel);
  weights.up = weights.gate;
  weights.down = MatrixView::RowMajor(data, DType::kF32, kDModel, kIntermediate);
  return weights;
}

absl::StatusOr<ExpertWeights> FakeCheckpoint::Shared(uint32_t) const {
  return absl::NotFoundError("no shared experts here");
}

float FakeExpert(float code, IntermediateSlice slice, float x, uint32_t column) {
  return code * x + 64 * code + static_cast<float>(column + 16 * slice.index + 32 * slice.count);
}

namespace {

void ComputeBatch(const experts::GroupedBatch& batch, DType compute_dtype) {
  EXPERTMESH_CHECK(reinterpret_cast<uintptr_t>(batch.hidden_states) % 64 == 0);
  EXPERTMESH_CHECK(batch.row_begin.size() == batch.rows + 1);
  EXPERTMESH_CHECK(batch.row_begin.back() == batch.experts.size());
  EXPERTMESH_CHECK(batch.weights.size() == batch.experts.size());
  EXPERTMESH_CHECK(batch.hidden_row_of.empty() || batch.hidden_row_of.size() == batch.rows);
  std::vector<uint32_t> hidden_row_of(batch.hidden_row_of.begin(), batch.hidden_row_of.end());
  if (hidden_row_of.empty()) {
    hidden_row_of.resize(batch.rows);
    std::iota(hidden_row_of.begin(), hidden_row_of.end(), 0);
  }
  std::vector<float> x((*std::max_element(hidden_row_of.begin(), hidden_row_of.end()) + 1) *
                       batch.d_model);
  ConvertElements(compute_dtype, batch.hidden_states, DType::kF32, x.data(), x.size());
  for (size_t row = 0; row < batch.rows; ++row) {
    for (size_t column = 0; column < batch.d_model; ++column) {
      float sum = 0;
      for (uint32_t a = batch.row_begin[row]; a < batch.row_begin[row + 1]; ++a) {
        const auto& packed = static_cast<const FakePacked&>(*batch.experts[a]);
        sum += batch.weights[a] * FakeExpert(packed.code, packed.slice,
                                             x[hidden_row_of[row] * batch.d_model + column],
                                             static_cast<uint32_t>(column));
      }
      batch.partials[row * batch.d_model + column] = sum;
    }
  }
}

}  // namespace

absl::StatusOr<std::shared_ptr<const experts::PackedExpert>> FakeBackend::Pack(
    const ExpertOptions& options, const ExpertWeights& weights, IntermediateSlice slice) {
  std::function<void()> on_pack;
  {
    const absl::MutexLock lock(&mutex_);
    on_pack = on_pack_;
  }
  if (on_pack) {
    on_pack();
  }
  ++packed_;
  float code = 0;
  std::memcpy(&code, weights.gate.data, sizeof(code));
  const size_t bytes = PackedBytes(options, weights, slice).value();
  return std::make_shared<const FakePacked>(code, slice, bytes, alive_);
}

// As wide as the compute type, and biases.
absl::StatusOr<uint64_t> FakeBackend::PackedBytes(const ExpertOptions& options,
                                                  const ExpertWeights&, IntermediateSlice slice) {
  return options.parameters() / slice.count * BytesOf(compute_dtype_);
}

void FakeBackend::Submit(const experts::GroupedBatch& batch, Completion done) {
  {
    const absl::MutexLock lock(&mutex_);
    calls_.push_back(batch.rows);
    if (later_) {
      submitted_.push_back({batch, std::move(done)});
      return;
    }
    held_ = hold_;
    const auto released = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !hold_; };
    mutex_.Await(absl::Condition(&released));
    held_ = false;
  }
  absl::Status status = TakeFailure();
  if (status.ok()) {
    ComputeBatch(batch, compute_dtype_);
  }
  std::move(done)(std::move(status));
}

absl::Status FakeBackend::TakeFailure() {
  const absl::MutexLock lock(&mutex_);
  return std::exchange(fail_next_, absl::OkStatus());
}

void FakeBackend::CompleteLater(size_t preferred) {
  in_flight_ = preferred;
  const absl::MutexLock lock(&mutex_);
  later_ = true;
}

void FakeBackend::AwaitSubmitted(size_t count) {
  const absl::MutexLock lock(&mutex_);
  const auto there = [this, count]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return submitted_.size() >= count;
  };
  mutex_.Await(absl::Condition(&there));
}

size_t FakeBackend::submitted() const {
  const absl::MutexLock lock(&mutex_);
  return submitted_.size();
}

void FakeBackend::Complete(size_t index) {
  Submitted next;
  {
    const absl::MutexLock lock(&mutex_);
    EXPERTMESH_CHECK(index < submitted_.size());
    next = std::move(submitted_[index]);
    submitted_.erase(submitted_.begin() + static_cast<ptrdiff_t>(index));
  }
  absl::Status status = TakeFailure();
  if (status.ok()) {
    ComputeBatch(next.batch, compute_dtype_);
  }
  std::move(next.done)(std::move(status));
}

void FakeBackend::Hold() {
  const absl::MutexLock lock(&mutex_);
  hold_ = true;
}

void FakeBackend::AwaitHeld() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&held_));
}

void FakeBackend::Release() {
  const absl::MutexLock lock(&mutex_);
  hold_ = false;
}

void FakeBackend::FailNext(absl::Status status) {
  const absl::MutexLock lock(&mutex_);
  fail_next_ = std::move(status);
}

void FakeBackend::OnPack(std::function<void()> callback) {
  const absl::MutexLock lock(&mutex_);
  on_pack_ = std::move(callback);
}

std::vector<size_t> FakeBackend::calls() const {
  const absl::MutexLock lock(&mutex_);
  return calls_;
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

v1::ComputeRequest MakeRequest(const TestBatch& batch, size_t first, size_t count) {
  v1::ComputeRequest request;
  request.set_batch_id(batch.batch_id);
  request.set_layer(batch.layer);
  request.set_total_rows(static_cast<uint32_t>(batch.rows()));
  request.set_first_row(static_cast<uint32_t>(first));
  if (batch.partials_dtype != DType::kF32) {
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

Frame MakeFrame(const v1::ComputeRequest& message, uint64_t rows, uint64_t cols) {
  const TensorFrame tensor =
      MakeTensor(DType::kF32, rows, cols, std::vector<float>(rows * cols, 0.0f));
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
  absl::StatusOr<TensorMessage<v1::ComputeResponse>> decoded =
      DecodeTensorMessage<v1::ComputeResponse>(frame);
  EXPERTMESH_CHECK(decoded.ok());
  const v1::ComputeResponse& message = decoded->message;
  const absl::MutexLock lock(&mutex_);
  if (gone_ || failing_) {
    return absl::UnavailableError("the stream is gone");
  }
  Answer& answer = answers_[message.batch_id()];
  ++answer.frames;
  if (message.status().code() != 0) {
    answer.malformed |= answer.frames > 1 || decoded->has_tensor;
    answer.status = absl::Status(static_cast<absl::StatusCode>(message.status().code()),
                                 message.status().message());
    return absl::OkStatus();
  }
  answer.malformed |= !answer.status.ok() || !decoded->has_tensor ||
                      message.first_row() * kDModel != answer.partials.size();
  const size_t old = answer.partials.size();
  answer.partials.resize(old + decoded->tensor.rows * decoded->tensor.cols);
  DecodeRows(decoded->tensor, DType::kF32, answer.partials.data() + old);
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

std::string MetricValue(const prometheus::Registry& registry, const std::string& series) {
  const std::string text =
      absl::StrCat("\n", prometheus::TextSerializer().Serialize(registry.Collect()));
  const size_t found = text.find(absl::StrCat("\n", series, " "));
  if (found == std::string::npos) {
    return "absent";
  }
  const size_t begin = found + series.size() + 2;
  return text.substr(begin, text.find('\n', begin) - begin);
}

}  // namespace expertmesh::node
