// The seam for expert math. A backend packs an expert's weights once, when it is loaded, into the
// layout its kernels want, and then computes whole batches: every token row through every expert it
// was assigned to, weighted and summed.
//
// What holds for every implementation (tests/unit/common/experts/backend_conformance.h):
// - a row's result does not depend on which rows or experts share its batch, nor on what else is in
//   flight, bit for bit;
// - sums run in float32, in the order of the row's assignments;
// - NaN and Inf of a row reach that row's result and no other;
// - every submitted batch is completed exactly once, and an error of one touches no other.
//
// backend_factory.h makes backends.
#ifndef EXPERTMESH_COMMON_EXPERTS_BACKEND_H_
#define EXPERTMESH_COMMON_EXPERTS_BACKEND_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/experts/weight_storage.h"
#include "common/model/expert_weights.h"
#include "common/model/model_description.h"
#include "common/tensor/dtype.h"

namespace expertmesh::experts {

// An expert ready to compute. Immutable; shared between batches; freed with its last owner.
class PackedExpert {
 public:
  virtual ~PackedExpert() = default;
  // Memory it holds, in bytes.
  virtual size_t bytes() const = 0;
};

// A batch of token rows of one layer. What it points to, the experts included, belongs to the
// caller, and must live and stay as it is until the batch is completed.
struct GroupedBatch {
  // [rows, d_model] of Backend::compute_dtype(), row-major, 64-byte aligned start.
  const void* hidden_states = nullptr;
  size_t rows = 0;
  size_t d_model = 0;
  // Assignments of row r are [row_begin[r], row_begin[r + 1]); row_begin has rows + 1 entries from
  // 0.
  absl::Span<const uint32_t> row_begin;
  // Per assignment, in slot order. Experts come from this backend's Pack with the same d_model.
  absl::Span<const PackedExpert* const> experts;
  absl::Span<const float> weights;
  ApplyWeight apply = ApplyWeight::kOutput;
  // Out: [rows, d_model]; every element is written. A row without assignments becomes 0. After an
  // error the contents mean nothing.
  float* partials = nullptr;
  // [rows] Which row of `hidden_states`, which may then have any number of them, row r reads: so
  // that the assignments of a token can be rows of their own without copies of it. Empty: row r.
  absl::Span<const uint32_t> hidden_row_of = {};
};

// What is asked of every kind of backend.
struct BackendOptions {
  // Type that experts are computed in: kF32 or kBF16.
  Dtype compute_dtype = Dtype::kBF16;
  // Threads of the CPU that compute; 0: one per available core.
  int threads = 0;
  WeightStorage weights = WeightStorage::kExpanded;
};

// Thread-safe.
class Backend {
 public:
  // Takes the status of one batch. Runs on the thread that called Submit, inside that call, or on a
  // thread of the backend. It may call Submit, and must not destroy the backend. The backend no
  // longer touches the batch's memory.
  using Completion = absl::AnyInvocable<void(absl::Status) &&>;

  // Waits until the completions of all batches in flight have returned.
  virtual ~Backend() = default;

  // The name that the factory knows it by.
  virtual absl::string_view name() const = 0;

  // Type hidden states must have, and products are computed in: kF32 or kBF16.
  virtual Dtype compute_dtype() const = 0;

  // How many batches are worth having in flight at once, at least 1: further ones only wait.
  virtual size_t preferred_in_flight() const = 0;

  // Converts and packs one expert, or one slice of its intermediate dimension. Reads `weights`
  // during the call only.
  //   INVALID_ARGUMENT    shapes or types do not fit `options`, or the slice does not divide them.
  //   RESOURCE_EXHAUSTED  no memory.
  virtual absl::StatusOr<std::shared_ptr<const PackedExpert>> Pack(const ExpertOptions& options,
                                                                   const ExpertWeights& weights,
                                                                   IntermediateSlice slice) = 0;

  // What bytes() of the packed expert will be. Reads no weights.
  //   INVALID_ARGUMENT  as from Pack.
  virtual absl::StatusOr<uint64_t> PackedBytes(const ExpertOptions& options,
                                               const ExpertWeights& weights,
                                               IntermediateSlice slice) = 0;

  // Computes partials[r] = sum over assignments a of r of weights[a] * experts[a](row r) (with
  // ApplyWeight::kInput: experts[a](weights[a] * row r)), then calls `done`. `batch` itself is
  // copied; what it points to is not. Batches may complete in any order. Accepts any number of
  // batches in flight; may block while the backend is busy.
  //   INVALID_ARGUMENT  the batch is malformed, or names an expert that this backend cannot take.
  virtual void Submit(const GroupedBatch& batch, Completion done) = 0;
};

// Submits `batch` and waits for its completion. Thread-safe.
absl::Status Compute(Backend& backend, const GroupedBatch& batch);

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_BACKEND_H_
