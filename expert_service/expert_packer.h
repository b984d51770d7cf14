// From an expert in the checkpoint to its weights in the backend.
#ifndef EXPERTMESH_EXPERT_SERVICE_EXPERT_PACKER_H_
#define EXPERTMESH_EXPERT_SERVICE_EXPERT_PACKER_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "common/checkpoint/moe_checkpoint.h"
#include "common/experts/backend.h"

namespace expertmesh::node {

// An expert of the checkpoint, or a slice of one.
struct ExpertSource {
  const MoeLayerDescription* layer = nullptr;  // Belongs to the checkpoint.
  uint32_t expert = 0;
  IntermediateSlice slice;
};

// Thread-safe.
class ExpertPacker {
 public:
  struct Packed {
    // Null where only the checkpoint was looked at.
    std::shared_ptr<const experts::PackedExpert> expert;
    // Held by the backend, once it is packed.
    uint64_t bytes = 0;
    // In the checkpoint: values, scales and biases.
    uint64_t checkpoint_bytes = 0;
    // DigestOf the weights that were read.
    uint64_t digest = 0;
  };

  // `backend` must outlive it. `releases`: what was read of an expert does not stay in the memory
  // of this process.
  ExpertPacker(std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint,
               experts::Backend* backend, bool releases)
      : checkpoint_(std::move(checkpoint)), backend_(backend), releases_(releases) {}

  // What the expert will hold once it is packed; reads no weights.
  //   NOT_FOUND         there is no such expert, or the file that has it is missing.
  //   INVALID_ARGUMENT  as from Backend::PackedBytes.
  absl::StatusOr<uint64_t> Bytes(const ExpertSource& source) const;

  // Reads the expert, and packs it if `pack` says so. DATA_LOSS when its file was written to
  // meanwhile; further errors as from Backend::Pack.
  absl::StatusOr<Packed> Read(const ExpertSource& source, bool pack) const;

 private:
  absl::StatusOr<Packed> Read(const ExpertSource& source, const ExpertWeights& weights,
                              bool pack) const;

  const std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint_;
  experts::Backend* const backend_;
  const bool releases_;
};

}  // namespace expertmesh::node

#endif  // EXPERTMESH_EXPERT_SERVICE_EXPERT_PACKER_H_
