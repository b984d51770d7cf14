// Stand-ins for what a node stands on: a checkpoint in memory, a backend whose arithmetic is exact
// and gives away every mistake in routing, and a router's end of a stream.
#ifndef EXPERTMESH_TESTS_UNIT_EXPERT_SERVICE_FAKES_H_
#define EXPERTMESH_TESTS_UNIT_EXPERT_SERVICE_FAKES_H_

#include <prometheus/registry.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/checkpoint/moe_checkpoint.h"
#include "common/experts/backend.h"
#include "common/transport/transport.h"
#include "expertmesh/v1/expert.pb.h"

namespace expertmesh::node {

inline constexpr uint32_t kDModel = 6;
inline constexpr uint32_t kIntermediate = 8;
inline constexpr uint32_t kNumExperts = 10;

// MoE layers 1, 2 and 4 of 6; kNumExperts experts each.
ModelDescription FakeModel();

// Every weight of an expert is its code, which names layer and expert.
float ExpertCode(uint32_t layer, uint32_t expert);

class FakeCheckpoint final : public checkpoint::MoeCheckpoint {
 public:
  FakeCheckpoint();

  const ModelDescription& model() const override { return model_; }
  const std::string& fingerprint() const override { return fingerprint_; }
  absl::StatusOr<GateWeights> Gate(uint32_t layer) const override;
  absl::StatusOr<ExpertWeights> Expert(uint32_t layer, uint32_t expert) const override;
  absl::StatusOr<ExpertWeights> Shared(uint32_t layer) const override;

  // Experts of this layer cannot be read (DATA_LOSS). Set before use.
  void BreakLayer(uint32_t layer) { broken_layer_ = layer; }

 private:
  ModelDescription model_;
  std::string fingerprint_ = std::string(64, 'f');
  std::map<std::pair<uint32_t, uint32_t>, std::vector<float>> weights_;
  int64_t broken_layer_ = -1;
};

// What the fake expert computes for one element: exact in float32 for the small integers that tests
// use, and different for every expert, slice, column and input.
float FakeExpert(float code, IntermediateSlice slice, float x, uint32_t column);

// Thread-safe.
class FakeBackend final : public experts::Backend {
 public:
  explicit FakeBackend(DType compute_dtype = DType::kF32) : compute_dtype_(compute_dtype) {}

  absl::string_view name() const override { return "fake"; }
  DType compute_dtype() const override { return compute_dtype_; }
  absl::StatusOr<std::shared_ptr<const experts::PackedExpert>> Pack(
      const ExpertOptions& options, const ExpertWeights& weights, IntermediateSlice slice) override;
  absl::StatusOr<uint64_t> PackedBytes(const ExpertOptions& options, const ExpertWeights& weights,
                                       IntermediateSlice slice) override;
  size_t preferred_in_flight() const override { return in_flight_.load(); }
  // Computes and completes inside the call, as the CPU backend does.
  void Submit(const experts::GroupedBatch& batch, Completion done) override;

  // Submit calls wait from Hold() until Release(); AwaitHeld() returns when one waits.
  void Hold();
  void AwaitHeld();
  void Release();
  // From now on Submit returns at once, and a batch is computed and completed by Complete(), on the
  // test's thread: the one that was submitted at position `index` of those not yet complete.
  // `preferred` is preferred_in_flight(). All must be complete before the backend goes.
  void CompleteLater(size_t preferred);
  void AwaitSubmitted(size_t count);
  void Complete(size_t index);
  size_t submitted() const;
  // The next batch that is computed fails with this.
  void FailNext(absl::Status status);
  // Called by every Pack, before it packs.
  void OnPack(std::function<void()> callback);

  // Rows of every batch submitted so far.
  std::vector<size_t> calls() const;
  // Packed experts that exist.
  int alive() const { return alive_->load(); }
  int packed() const { return packed_.load(); }

 private:
  struct Submitted {
    experts::GroupedBatch batch;
    Completion done;
  };

  absl::Status TakeFailure();

  const DType compute_dtype_;
  std::atomic<size_t> in_flight_{1};
  const std::shared_ptr<std::atomic<int>> alive_ = std::make_shared<std::atomic<int>>(0);
  std::atomic<int> packed_{0};
  mutable absl::Mutex mutex_;
  bool hold_ ABSL_GUARDED_BY(mutex_) = false;
  bool held_ ABSL_GUARDED_BY(mutex_) = false;
  bool later_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<Submitted> submitted_ ABSL_GUARDED_BY(mutex_);
  absl::Status fail_next_ ABSL_GUARDED_BY(mutex_);
  std::function<void()> on_pack_ ABSL_GUARDED_BY(mutex_);
  std::vector<size_t> calls_ ABSL_GUARDED_BY(mutex_);
};

// A batch as a router has it before it is encoded.
struct TestBatch {
  uint64_t batch_id = 0;
  uint32_t layer = 1;
  std::vector<std::vector<uint32_t>> experts;  // Per row.
  std::vector<std::vector<float>> weights;
  std::vector<std::vector<float>> hidden_states;  // Per row, [kDModel].
  DType dtype = DType::kF32;
  DType partials_dtype = DType::kF32;  // Left out of the message when it is kF32.
  bool per_assignment = false;
  bool has_timeout = false;
  int64_t timeout_us = 0;

  size_t rows() const { return experts.size(); }
  size_t assignments() const;
  size_t answer_rows() const { return per_assignment ? assignments() : rows(); }
};

// `rows` rows of small integers, each with 1 to 4 experts of `allowed` and weights 1, 2 or 4.
TestBatch RandomBatch(std::mt19937* random, uint64_t batch_id, uint32_t layer, size_t rows,
                      const std::vector<uint32_t>& allowed);

// The message of rows [first, first + count), without the tensor; and the whole frame.
v1::ComputeRequest MakeRequest(const TestBatch& batch, size_t first, size_t count);
Frame MakeFrame(const TestBatch& batch, size_t first, size_t count);
// The whole batch, cut every `rows_per_frame` rows.
std::vector<Frame> MakeFrames(const TestBatch& batch, size_t rows_per_frame);
// A frame with `message` as it is and a [rows, cols] F32 tensor of zeros.
Frame MakeFrame(const v1::ComputeRequest& message, uint64_t rows, uint64_t cols);

// [answer rows * kDModel]: what must come back, experts held as `slice`.
std::vector<float> Expected(const TestBatch& batch, IntermediateSlice slice = {});

// Collects answers. Thread-safe.
class FakeSink final : public FrameSink {
 public:
  struct Answer {
    absl::Status status;
    std::vector<float> partials;  // Decoded.
    DType dtype = DType::kF32;    // As they came.
    size_t frames = 0;
    uint64_t queue_us = 0;
    uint64_t compute_us = 0;
    // Frames whose first_row did not follow on, or more than one error.
    bool malformed = false;
  };

  absl::Status Send(Frame frame) override;
  bool IsGone() const override;

  // The stream breaks: Send gives UNAVAILABLE.
  void Break();
  // Send gives UNAVAILABLE, but IsGone() does not know yet.
  void BreakUnnoticed();

  // Blocks until batch `batch_id` has an error or `rows` rows.
  Answer Await(uint64_t batch_id, size_t rows);
  // As of now; zero frames when there is none.
  Answer Get(uint64_t batch_id) const;
  size_t answers() const;

 private:
  mutable absl::Mutex mutex_;
  bool gone_ ABSL_GUARDED_BY(mutex_) = false;
  bool failing_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<uint64_t, Answer> answers_ ABSL_GUARDED_BY(mutex_);
};

// Value of one series as text; `series` is its name and labels as Prometheus writes them (labels in
// alphabetical order). "absent" when there is none.
std::string MetricValue(const prometheus::Registry& registry, const std::string& series);

}  // namespace expertmesh::node

#endif  // EXPERTMESH_TESTS_UNIT_EXPERT_SERVICE_FAKES_H_
