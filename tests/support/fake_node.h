// A node whose experts do arithmetic that gives every mistake away: expert e of layer l, slice s of
// n, makes row x into (x * (e + 1) + l) / n. A row that is lost, doubled, swapped or sent to the
// wrong expert shows.
#ifndef EXPERTMESH_TESTS_SUPPORT_FAKE_NODE_H_
#define EXPERTMESH_TESTS_SUPPORT_FAKE_NODE_H_

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "common/base/check.h"
#include "common/wire/frame_checksum.h"
#include "common/wire/message_codec.h"
#include "common/wire/status.h"
#include "common/wire/tensor_copy.h"
#include "common/wire/tensor_encode.h"
#include "common/wire/wire_dtype.h"
#include "tests/support/fake_endpoint.h"

namespace expertmesh {

inline float FakeExpert(uint32_t layer, uint32_t expert, float x, uint32_t slices = 1) {
  return (x * static_cast<float>(expert + 1) + static_cast<float>(layer)) /
         static_cast<float>(slices);
}

// What the shared experts of these tests do to a row.
inline float FakeShared(float x) { return 1000.0f * x; }

struct FakeNodeOptions {
  std::string fingerprint = "aaaa";
  uint32_t d_model = 8;
  std::vector<uint32_t> layers = {1, 3};
  std::vector<uint32_t> experts;
  // Which of them is the shared one and does what FakeShared does.
  uint32_t shared_expert = ~uint32_t{0};
  uint32_t slice_index = 0;
  uint32_t slice_count = 1;
  uint32_t max_batch_rows = 8192;
  uint64_t max_frame_bytes = 1 << 20;
  // Null: it says none.
  std::function<uint64_t(uint32_t layer, uint32_t expert)> digest = nullptr;
  // Frames may come damaged.
  bool accepts_damage = false;
};

// Thread-safe. Streams must be gone before it is destroyed.
class FakeNode final : public FakeEndpoint {
 public:
  explicit FakeNode(const FakeNodeOptions& options)
      : FakeEndpoint(DescriptionOf(options)), options_(options) {}

  // Answers wait until Release, or are gone with their stream.
  void Hold() {
    absl::MutexLock lock(&mutex_);
    holding_ = true;
  }
  void Release() {
    std::vector<std::function<void()>> held;
    {
      absl::MutexLock lock(&mutex_);
      holding_ = false;
      held.swap(held_);
    }
    for (const std::function<void()>& answer : held) {
      answer();
    }
  }
  void AwaitHeld(size_t count) {
    const auto enough = [this, count]()
                            ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return held_.size() >= count; };
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&enough));
  }

  // Every later batch is answered with this instead; OK ends that.
  void FailWith(const absl::Status& status) { FailTimes(0, status); }
  // The next batch, or so many of them, alone.
  void FailOnce(const absl::Status& status) { FailTimes(1, status); }
  void FailTimes(int times, const absl::Status& status) {
    absl::MutexLock lock(&mutex_);
    failure_ = status;
    failures_left_ = times;
  }
  // From now on all that this expert makes is `value`.
  void Damage(uint32_t expert, float value) {
    absl::MutexLock lock(&mutex_);
    damaged_[expert] = value;
  }
  // Every later answer is these bytes.
  void AnswerBytes(const std::string& bytes) {
    absl::MutexLock lock(&mutex_);
    bytes_ = bytes;
  }

  // Every later answer that is no error is changed so before it is sent; null ends that.
  using Edit = std::function<void(internal::v1::ComputeResponse* response, TensorFrame* partials)>;
  void EditAnswers(Edit edit) {
    absl::MutexLock lock(&mutex_);
    edit_ = std::move(edit);
  }

  // What the answers to the next batches, one entry each, say of their time (errors too); 0 when no
  // entry is left.
  struct Times {
    uint64_t queue_us = 0;
    uint64_t compute_us = 0;
  };
  void Report(const std::vector<Times>& times) {
    absl::MutexLock lock(&mutex_);
    times_.assign(times.begin(), times.end());
  }

  void SetExperts(const std::vector<uint32_t>& experts) {
    Change([&experts](FakeNodeOptions* options) { options->experts = experts; });
  }
  void SetMaxBatchRows(uint32_t rows) {
    Change([rows](FakeNodeOptions* options) { options->max_batch_rows = rows; });
  }
  void SetDigest(std::function<uint64_t(uint32_t layer, uint32_t expert)> digest) {
    Change([&digest](FakeNodeOptions* options) { options->digest = std::move(digest); });
  }

  uint64_t batches() const {
    absl::MutexLock lock(&mutex_);
    return batches_;
  }
  uint64_t assignments() const {
    absl::MutexLock lock(&mutex_);
    return assignments_;
  }
  uint64_t rows() const {
    absl::MutexLock lock(&mutex_);
    return rows_;
  }
  // The trace context of the last batch.
  std::string traceparent() const {
    absl::MutexLock lock(&mutex_);
    return traceparent_;
  }
  std::string tracestate() const {
    absl::MutexLock lock(&mutex_);
    return tracestate_;
  }
  // As the last frame had it.
  Dtype hidden_states_dtype() const {
    absl::MutexLock lock(&mutex_);
    return hidden_states_dtype_;
  }

  std::unique_ptr<StreamHandler> OpenCompute(std::shared_ptr<FrameSink> replies) override {
    return std::make_unique<Stream>(this, std::move(replies));
  }

 private:
  // And says so.
  void Change(const std::function<void(FakeNodeOptions*)>& how) {
    v1::NodeDescription description;
    {
      absl::MutexLock lock(&mutex_);
      how(&options_);
      description = DescriptionOf(options_);
    }
    Become(std::move(description));
  }

  struct Batch {
    std::vector<float> partials;
    uint32_t rows = 0;
    Dtype partials_dtype = Dtype::kF32;
    uint32_t answer_rows = 0;
    bool checksums = false;
  };

  class Stream final : public StreamHandler {
   public:
    Stream(FakeNode* node, std::shared_ptr<FrameSink> replies)
        : node_(node), replies_(std::move(replies)) {}

    void OnFrame(Frame frame) override {
      const auto request = DecodeTensorMessage<internal::v1::ComputeRequest>(frame);
      if (!request.ok() || !request->has_tensor) {
        node_->Refuse(absl::StatusCode::kInvalidArgument, 0, *replies_);
        return;
      }
      const internal::v1::ComputeRequest& message = request->message;
      if (message.has_checksum() && message.checksum() != ChecksumOf(message, request->tensor)) {
        node_->Refuse(absl::StatusCode::kDataLoss, message.batch_id(), *replies_);
        return;
      }
      Batch& batch = batches_[message.batch_id()];
      batch.checksums = message.has_checksum();
      EXPERTMESH_CHECK(message.first_row() == batch.rows);
      node_->Compute(*request, &batch);
      if (batch.rows == message.total_rows()) {
        node_->Answer(message.batch_id(), std::move(batch), replies_);
        batches_.erase(message.batch_id());
      }
    }

   private:
    FakeNode* const node_;
    const std::shared_ptr<FrameSink> replies_;
    absl::flat_hash_map<uint64_t, Batch> batches_;
  };

  static v1::NodeDescription DescriptionOf(const FakeNodeOptions& options) {
    v1::NodeDescription description;
    description.set_fingerprint(options.fingerprint);
    description.set_d_model(options.d_model);
    description.set_state(v1::NODE_STATE_READY);
    description.set_max_batch_rows(options.max_batch_rows);
    description.set_max_frame_bytes(options.max_frame_bytes);
    for (const uint32_t layer : options.layers) {
      v1::HostedExperts& hosted = *description.add_hosted();
      hosted.set_layer(layer);
      hosted.set_slice_index(options.slice_index);
      hosted.set_slice_count(options.slice_count);
      hosted.mutable_experts()->Add(options.experts.begin(), options.experts.end());
      for (size_t i = 0; options.digest != nullptr && i < options.experts.size(); ++i) {
        hosted.add_digests(options.digest(layer, options.experts[i]));
      }
    }
    return description;
  }

  float Apply(uint32_t layer, uint32_t expert, float x) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return expert == options_.shared_expert ? FakeShared(x)
                                            : FakeExpert(layer, expert, x, options_.slice_count);
  }

  void Compute(const TensorMessage<internal::v1::ComputeRequest>& request, Batch* batch) {
    absl::MutexLock lock(&mutex_);
    const size_t d_model = request.tensor.cols;
    std::vector<float> rows(request.tensor.rows * d_model);
    DecodeRows(request.tensor, Dtype::kF32, rows.data());
    hidden_states_dtype_ = request.tensor.dtype;
    traceparent_ = request.message.traceparent();
    tracestate_ = request.message.tracestate();
    batch->partials_dtype = *FromWire(request.message.partials_dtype(), "partials_dtype");
    const bool per_assignment = request.message.per_assignment();
    int assignment = 0;
    for (size_t row = 0; row < request.tensor.rows; ++row) {
      std::vector<float> sum(d_model, 0.0f);
      for (uint32_t a = 0; a < request.message.assignments_per_row(static_cast<int>(row)); ++a) {
        const uint32_t expert = request.message.expert_ids(assignment);
        const float weight = request.message.expert_weights(assignment);
        EXPERTMESH_CHECK(std::find(options_.experts.begin(), options_.experts.end(), expert) !=
                         options_.experts.end());
        for (size_t i = 0; i < d_model; ++i) {
          const auto damage = damaged_.find(expert);
          sum[i] += damage != damaged_.end()
                        ? damage->second
                        : weight * Apply(request.message.layer(), expert, rows[row * d_model + i]);
        }
        ++assignment;
        ++assignments_;
        const bool last = a + 1 == request.message.assignments_per_row(static_cast<int>(row));
        if (per_assignment || last) {
          batch->partials.insert(batch->partials.end(), sum.begin(), sum.end());
          ++batch->answer_rows;
          sum.assign(d_model, 0.0f);
        }
      }
    }
    EXPERTMESH_CHECK(batch->answer_rows <= options_.max_batch_rows);
    rows_ += request.tensor.rows;
    batch->rows += static_cast<uint32_t>(request.tensor.rows);
  }

  void Answer(uint64_t batch_id, Batch batch, std::shared_ptr<FrameSink> replies) {
    internal::v1::ComputeResponse response;
    response.set_batch_id(batch_id);
    std::vector<Frame> frames;
    {
      absl::MutexLock lock(&mutex_);
      ++batches_;
      *response.mutable_status() = ToWire(failure_);
      if (!times_.empty()) {
        response.set_queue_us(times_.front().queue_us);
        response.set_compute_us(times_.front().compute_us);
        times_.pop_front();
      }
      if (!bytes_.empty()) {
        frames = {Frame(bytes_)};
      } else if (!failure_.ok()) {
        frames = {EncodeTensorMessage(response, nullptr)};
        failure_ = --failures_left_ == 0 ? absl::OkStatus() : failure_;
      } else {
        frames = Encode(batch, edit_, &response);
      }
      if (holding_) {
        held_.push_back([replies, frames] { SendAll(frames, *replies); });
        return;
      }
    }
    SendAll(frames, *replies);
  }

  static void SendAll(const std::vector<Frame>& frames, FrameSink& replies) {
    for (const Frame& frame : frames) {
      replies.Send(frame).IgnoreError();
    }
  }

  // One frame; or one for each row, where a row is beyond the range of the type.
  static std::vector<Frame> Encode(const Batch& batch, const Edit& edit,
                                   internal::v1::ComputeResponse* response) {
    const size_t d_model = batch.partials.size() / batch.answer_rows;
    const bool narrow = IsActivationDtype(batch.partials_dtype);
    const auto beyond = [&](size_t row, size_t rows) {
      return narrow && HasOverflow(Dtype::kF32, batch.partials.data() + row * d_model,
                                   rows * d_model, batch.partials_dtype);
    };
    const size_t step = beyond(0, batch.answer_rows) ? 1 : batch.answer_rows;
    std::vector<Frame> frames;
    for (size_t row = 0; row < batch.answer_rows; row += step) {
      response->set_first_row(static_cast<uint32_t>(row));
      TensorFrame tensor =
          EncodeRows(Dtype::kF32, batch.partials.data() + row * d_model, step, d_model,
                     beyond(row, step) ? Dtype::kF32 : batch.partials_dtype);
      if (batch.checksums) {
        response->set_checksum(ChecksumOf(*response, tensor));
      }
      if (edit != nullptr) {
        edit(response, &tensor);
      }
      frames.push_back(EncodeTensorMessage(*response, &tensor));
    }
    return frames;
  }

  // A frame that a test damaged: without that, the router sends none that is refused.
  void Refuse(absl::StatusCode code, uint64_t batch_id, FrameSink& replies) {
    absl::MutexLock lock(&mutex_);
    EXPERTMESH_CHECK(options_.accepts_damage);
    internal::v1::ComputeResponse response;
    response.set_batch_id(batch_id);
    *response.mutable_status() = ToWire(absl::Status(code, "a damaged frame"));
    replies.Send(EncodeTensorMessage(response, nullptr)).IgnoreError();
  }

  mutable absl::Mutex mutex_;
  FakeNodeOptions options_ ABSL_GUARDED_BY(mutex_);
  bool holding_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::function<void()>> held_ ABSL_GUARDED_BY(mutex_);
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  int failures_left_ ABSL_GUARDED_BY(mutex_) = 0;  // None left: they have no end.
  absl::flat_hash_map<uint32_t, float> damaged_ ABSL_GUARDED_BY(mutex_);
  std::string bytes_ ABSL_GUARDED_BY(mutex_);
  Edit edit_ ABSL_GUARDED_BY(mutex_);
  std::deque<Times> times_ ABSL_GUARDED_BY(mutex_);
  uint64_t batches_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t assignments_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t rows_ ABSL_GUARDED_BY(mutex_) = 0;
  std::string traceparent_ ABSL_GUARDED_BY(mutex_);
  std::string tracestate_ ABSL_GUARDED_BY(mutex_);
  Dtype hidden_states_dtype_ ABSL_GUARDED_BY(mutex_) = Dtype::kF32;
};

}  // namespace expertmesh

#endif  // EXPERTMESH_TESTS_SUPPORT_FAKE_NODE_H_
