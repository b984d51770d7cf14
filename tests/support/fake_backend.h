// A backend whose arithmetic is exact and gives away every mistake in routing. Packing and
// computing can be watched, held and made to fail.
#ifndef EXPERTMESH_TESTS_SUPPORT_FAKE_BACKEND_H_
#define EXPERTMESH_TESTS_SUPPORT_FAKE_BACKEND_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/base/check.h"
#include "common/experts/backend.h"

namespace expertmesh {

// What an expert of FakeBackend computes for one element; `code` is the expert's first weight.
using FakeArithmetic =
    std::function<float(float code, IntermediateSlice slice, float x, uint32_t column)>;

// Exact in float32 for the small integers that tests use, and different for every code, slice,
// column and input.
inline float FakeExpert(float code, IntermediateSlice slice, float x, uint32_t column) {
  return code * x + 64 * code + static_cast<float>(column + 16 * slice.index + 32 * slice.count);
}

// Thread-safe.
class FakeBackend final : public experts::Backend {
 public:
  explicit FakeBackend(Dtype compute_dtype = Dtype::kF32, FakeArithmetic arithmetic = &FakeExpert)
      : compute_dtype_(compute_dtype), arithmetic_(std::move(arithmetic)) {}

  absl::string_view name() const override { return "fake"; }
  Dtype compute_dtype() const override { return compute_dtype_; }

  absl::StatusOr<std::shared_ptr<const experts::PackedExpert>> Pack(
      const ExpertOptions& options, const ExpertWeights& weights,
      IntermediateSlice slice) override {
    std::function<void()> on_pack;
    {
      const absl::MutexLock lock(&mutex_);
      on_pack = on_pack_;
      packed_as_ = options;
    }
    if (on_pack) {
      on_pack();
    }
    ++packed_;
    float code = 0;
    std::memcpy(&code, weights.gate.data, sizeof(code));
    const size_t bytes = PackedBytes(options, weights, slice).value();
    return std::make_shared<const Packed>(code, slice, bytes, alive_);
  }

  // As wide as the compute type, and biases.
  absl::StatusOr<uint64_t> PackedBytes(const ExpertOptions& options, const ExpertWeights&,
                                       IntermediateSlice slice) override {
    return options.parameters() / slice.count * BytesOf(compute_dtype_);
  }

  size_t preferred_in_flight() const override { return in_flight_.load(); }

  // Computes and completes inside the call, as the CPU backend does, but see CompleteLater.
  void Submit(const experts::GroupedBatch& batch, Completion done) override {
    {
      absl::MutexLock lock(&mutex_);
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
    ComputeAndComplete(batch, std::move(done));
  }

  // Submit calls wait from Hold() until Release(); AwaitHeld() returns when one waits.
  void Hold() {
    const absl::MutexLock lock(&mutex_);
    hold_ = true;
  }
  void AwaitHeld() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&held_));
  }
  void Release() {
    const absl::MutexLock lock(&mutex_);
    hold_ = false;
  }

  // From now on Submit returns at once, and a batch is computed and completed by Complete(), on the
  // test's thread: the one that was submitted at position `index` of those not yet complete.
  // `preferred` is preferred_in_flight(). All must be complete before the backend goes.
  void CompleteLater(size_t preferred) {
    in_flight_ = preferred;
    const absl::MutexLock lock(&mutex_);
    later_ = true;
  }
  void AwaitSubmitted(size_t count) {
    const absl::MutexLock lock(&mutex_);
    const auto there = [this, count]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return submitted_.size() >= count;
    };
    mutex_.Await(absl::Condition(&there));
  }
  void Complete(size_t index) {
    Submitted next;
    {
      const absl::MutexLock lock(&mutex_);
      EXPERTMESH_CHECK(index < submitted_.size());
      next = std::move(submitted_[index]);
      submitted_.erase(submitted_.begin() + static_cast<ptrdiff_t>(index));
    }
    ComputeAndComplete(next.batch, std::move(next.done));
  }
  size_t submitted() const {
    const absl::MutexLock lock(&mutex_);
    return submitted_.size();
  }

  // The next batch that is computed fails with this.
  void FailNext(absl::Status status) {
    const absl::MutexLock lock(&mutex_);
    fail_next_ = std::move(status);
  }
  // Called by every Pack, before it packs.
  void OnPack(std::function<void()> callback) {
    const absl::MutexLock lock(&mutex_);
    on_pack_ = std::move(callback);
  }

  // Rows of every batch submitted so far.
  std::vector<size_t> calls() const {
    const absl::MutexLock lock(&mutex_);
    return calls_;
  }
  // Packed experts that exist.
  int alive() const { return alive_->load(); }
  int packed() const { return packed_.load(); }
  // The last expert that was packed.
  ExpertOptions packed_as() const {
    const absl::MutexLock lock(&mutex_);
    return packed_as_;
  }

 private:
  class Packed final : public experts::PackedExpert {
   public:
    Packed(float code, IntermediateSlice slice, size_t bytes,
           std::shared_ptr<std::atomic<int>> alive)
        : code(code), slice(slice), bytes_(bytes), alive_(std::move(alive)) {
      ++*alive_;
    }
    ~Packed() override { --*alive_; }
    size_t bytes() const override { return bytes_; }

    const float code;
    const IntermediateSlice slice;

   private:
    const size_t bytes_;
    const std::shared_ptr<std::atomic<int>> alive_;
  };

  struct Submitted {
    experts::GroupedBatch batch;
    Completion done;
  };

  void ComputeAndComplete(const experts::GroupedBatch& batch, Completion done) {
    absl::Status status;
    {
      const absl::MutexLock lock(&mutex_);
      status = std::exchange(fail_next_, absl::OkStatus());
    }
    if (status.ok()) {
      SumExperts(batch);
    }
    std::move(done)(std::move(status));
  }

  void SumExperts(const experts::GroupedBatch& batch) const {
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
    ConvertElements(compute_dtype_, batch.hidden_states, Dtype::kF32, x.data(), x.size());
    for (size_t row = 0; row < batch.rows; ++row) {
      for (size_t column = 0; column < batch.d_model; ++column) {
        float sum = 0;
        for (uint32_t a = batch.row_begin[row]; a < batch.row_begin[row + 1]; ++a) {
          const auto& packed = static_cast<const Packed&>(*batch.experts[a]);
          sum += batch.weights[a] * arithmetic_(packed.code, packed.slice,
                                                x[hidden_row_of[row] * batch.d_model + column],
                                                static_cast<uint32_t>(column));
        }
        batch.partials[row * batch.d_model + column] = sum;
      }
    }
  }

  const Dtype compute_dtype_;
  const FakeArithmetic arithmetic_;
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
  ExpertOptions packed_as_ ABSL_GUARDED_BY(mutex_);
  std::vector<size_t> calls_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh

#endif  // EXPERTMESH_TESTS_SUPPORT_FAKE_BACKEND_H_
