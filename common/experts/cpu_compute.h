// The computing half of the CPU backend: takes one batch at a time through the phases that
// cpu_backend.h lists. Private to common/experts.
#ifndef EXPERTMESH_COMMON_EXPERTS_CPU_COMPUTE_H_
#define EXPERTMESH_COMMON_EXPERTS_CPU_COMPUTE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "common/experts/backend.h"
#include "common/experts/compute_plan.h"
#include "common/experts/elementwise.h"
#include "common/experts/group_by_expert.h"
#include "common/experts/matmul.h"
#include "common/experts/weight_packer.h"
#include "common/experts/worker_team.h"
#include "common/tensor/aligned_buffer.h"
#include "common/tensor/dtype.h"

namespace expertmesh::experts {

// Keeps its threads and its memory between batches. Not thread-safe: one batch at a time.
class CpuCompute {
 public:
  CpuCompute(Dtype dtype, int threads, size_t max_scratch_bytes);

  // `batch` is well formed and has rows.
  //   INVALID_ARGUMENT  an expert that is not a CpuExpert of this type and d_model.
  absl::Status Run(const GroupedBatch& batch);

 private:
  using Block = ComputePlan::Block;

  struct Worker {
    MatmulRunner runner;
    AlignedBuffer rows;
    AlignedBuffer products;
    // For compressed experts: one expanded panel.
    WeightPacker packer;
    AlignedBuffer panel;
  };

  absl::Status CheckExperts(const GroupedBatch& batch, size_t* bytes_per_assignment) const;
  void ComputeRows(const GroupedBatch& batch, size_t begin, size_t end);
  void FillRowOf(const GroupedBatch& batch, size_t begin, size_t end);
  // Below: run in any of the team's threads.
  void RunUp(const GroupedBatch& batch, Worker& worker, ComputePlan::Task task);
  void RunDown(Worker& worker, ComputePlan::Task task);
  void SumRow(const GroupedBatch& batch, size_t row) const;
  void Gather(const GroupedBatch& batch, const Block& block, uint8_t* x) const;
  void Activate(const Block& block, uint32_t panel, const float* products);
  void ActivateStrip(const Block& block, size_t first, size_t columns, const float* products);

  const Dtype dtype_;
  const size_t element_;
  const size_t max_scratch_bytes_;
  const ElementwiseOps& ops_;

  GroupByExpert groups_;
  ComputePlan plan_;
  std::vector<uint32_t> row_of_;  // Per assignment: its row of the hidden states.
  size_t first_assignment_ = 0;   // The first one of the rows now computed.
  AlignedBuffer activations_;
  AlignedBuffer outputs_;
  TaskPhase up_phase_;
  TaskPhase down_phase_;
  TaskPhase sum_phase_;
  std::vector<Worker> workers_;
  WorkerTeam team_;  // Last: its threads use the rest.
};

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_CPU_COMPUTE_H_
