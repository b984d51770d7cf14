// Beside the nodes' work: the shared experts, which every token has. The router computes them, or
// they are planned like a routed expert's assignments where nodes hold them; what no node can
// compute any more comes back here.
#ifndef EXPERTMESH_ROUTER_SERVICE_BATCH_SHARED_STAGE_H_
#define EXPERTMESH_ROUTER_SERVICE_BATCH_SHARED_STAGE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/shared_experts/shared_experts.h"
#include "router_service/batch/batch.h"
#include "router_service/plan/planner.h"
#include "router_service/plan/shared_placement.h"

namespace expertmesh::batch {

// Working memory of a pooled run. Not thread-safe, but for what Run says.
class SharedStage {
 public:
  // What nodes are to compute, valid as long as the batch; none when all rows are the router's.
  std::optional<plan::SharedDemand> Begin(const Batch& batch);
  // With a demand, once it is planned: `rows`, ascending, are the router's all the same.
  void Keep(const Batch& batch, absl::Span<const uint32_t> rows);

  // The router has rows to compute.
  bool has_rows() const { return all_rows_ || !rows_.empty(); }
  // Computes these on this router's backend, from what Gather made. Beside RunLost, on another
  // thread, if need be.
  absl::Status Run(const Batch& batch);

  // Takes rows out of `unplaced` for which no node is left to compute shared experts, and computes
  // them.
  void TakeLost(const Batch& batch, std::vector<plan::Unplaced>* unplaced);
  absl::Status RunLost(const Batch& batch);

  // [rows, d_model] float32, zeros where nodes compute; null while there is none. Once no Run is
  // under way.
  const float* output() const { return output_ == nullptr ? nullptr : output_->as<float>(); }
  // The router has computed `row` in place of a node, and all of it is finite.
  bool IsFiniteHere(const Batch& batch, uint32_t row) const;

  // Drops the output; keeps memory.
  void Clear();
  size_t MemoryBytes() const;

 private:
  // Serves one computation at a time.
  struct Scratch {
    shared_experts::SharedExpertsScratch experts;
    std::vector<float> weights;    // [rows computed]
    std::vector<uint32_t> places;  // 0, 1, 2, ...

    size_t MemoryBytes() const {
      return experts.MemoryBytes() + weights.capacity() * sizeof(float) +
             places.capacity() * sizeof(uint32_t);
    }
  };

  void AddWork(const Batch& batch, size_t rows);
  void MakeOutput(const Batch& batch);
  absl::Status ComputeRows(const Batch& batch, absl::Span<const uint32_t> rows, Scratch* scratch);
  // What a node would be sent of `rows`.
  std::shared_ptr<AlignedBuffer> Receive(const Batch& batch, absl::Span<const uint32_t> rows,
                                         Scratch* scratch);

  bool all_rows_ = false;
  // Rows are computed from what nodes would be sent, and rounded to what they would send: with
  // strict, bits do not depend on who computes.
  bool as_nodes_ = false;
  uint64_t work_ = 0;           // Until Run is done.
  std::vector<float> weights_;  // [rows of the batch] Unless the router computes all rows.
  std::vector<uint32_t> rows_;
  std::shared_ptr<AlignedBuffer> output_;
  Scratch scratch_;
  // Those that TakeLost took last, and all of them.
  std::vector<uint32_t> lost_;
  std::vector<uint32_t> all_lost_;
  Scratch lost_scratch_;
};

}  // namespace expertmesh::batch

#endif  // EXPERTMESH_ROUTER_SERVICE_BATCH_SHARED_STAGE_H_
