// What a node of tests stands on: a checkpoint, batches that routers send, and a router's end of a
// stream.
#ifndef EXPERTMESH_TESTS_UNIT_EXPERT_SERVICE_FAKES_H_
#define EXPERTMESH_TESTS_UNIT_EXPERT_SERVICE_FAKES_H_

#include <prometheus/registry.h>

#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/transport/transport.h"
#include "expertmesh/internal/v1/expert.pb.h"
#include "tests/support/fake_backend.h"
#include "tests/support/fake_checkpoint.h"

namespace expertmesh::node {

inline constexpr uint32_t kDModel = 6;
inline constexpr uint32_t kIntermediate = 8;
inline constexpr uint32_t kNumExperts = 10;

// Every weight of an expert is its code, which names layer and expert.
float ExpertCode(uint32_t layer, uint32_t expert);

// MoE layers 1, 2 and 4 of 6; kNumExperts experts each, whose weights are their codes.
std::shared_ptr<FakeCheckpoint> MakeCheckpoint();
// The same with shared experts of that intermediate size, whose weights are the code of expert
// kNumExperts.
std::shared_ptr<FakeCheckpoint> MakeCheckpointWithShared(uint32_t intermediate_size);

// As NodeOptions::cpu_time, for nodes on a clock that stands still.
inline absl::Duration NoCpuTime() { return absl::ZeroDuration(); }

// A batch as a router has it before it is encoded.
struct TestBatch {
  uint64_t batch_id = 0;
  uint32_t layer = 1;
  std::vector<std::vector<uint32_t>> experts;  // Per row.
  std::vector<std::vector<float>> weights;
  std::vector<std::vector<float>> hidden_states;  // Per row, [kDModel].
  Dtype dtype = Dtype::kF32;
  Dtype partials_dtype = Dtype::kF32;  // Left out of the message when it is kF32.
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
internal::v1::ComputeRequest MakeRequest(const TestBatch& batch, size_t first, size_t count);
Frame MakeFrame(const TestBatch& batch, size_t first, size_t count);
// The whole batch, cut every `rows_per_frame` rows.
std::vector<Frame> MakeFrames(const TestBatch& batch, size_t rows_per_frame);
// A frame with `message` as it is and a [rows, cols] F32 tensor of zeros.
Frame MakeFrame(const internal::v1::ComputeRequest& message, uint64_t rows, uint64_t cols);

// [answer rows * kDModel]: what must come back, experts held as `slice`.
std::vector<float> Expected(const TestBatch& batch, IntermediateSlice slice = {});

// Collects answers. Thread-safe.
class FakeSink final : public FrameSink {
 public:
  struct Answer {
    absl::Status status;
    std::vector<float> partials;  // Decoded.
    Dtype dtype = Dtype::kF32;    // As they came.
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
std::string MetricValue(const prometheus::Collectable& metrics, const std::string& series);

}  // namespace expertmesh::node

#endif  // EXPERTMESH_TESTS_UNIT_EXPERT_SERVICE_FAKES_H_
