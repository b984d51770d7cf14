#include "expert_service/expert_packer.h"

#include "common/base/status_macros.h"
#include "common/checkpoint/expert_digest.h"
#include "common/model/expert_slice.h"

namespace expertmesh::node {

absl::StatusOr<uint64_t> ExpertPacker::Bytes(const ExpertSource& source) const {
  ASSIGN_OR_RETURN(const ExpertWeights weights,
                   checkpoint_->Hostable(source.layer->layer, source.expert));
  return backend_->PackedBytes(source.layer->hostable_expert(source.expert), weights, source.slice);
}

absl::StatusOr<ExpertPacker::Packed> ExpertPacker::Read(const ExpertSource& source,
                                                        bool pack) const {
  ASSIGN_OR_RETURN(const ExpertWeights weights,
                   checkpoint_->Hostable(source.layer->layer, source.expert));
  absl::StatusOr<Packed> packed = Read(source, weights, pack);
  if (releases_) {
    checkpoint_->Release(weights);
  }
  return packed;
}

absl::StatusOr<ExpertPacker::Packed> ExpertPacker::Read(const ExpertSource& source,
                                                        const ExpertWeights& weights,
                                                        bool pack) const {
  const ExpertOptions options = source.layer->hostable_expert(source.expert);
  Packed packed;
  if (pack) {
    ASSIGN_OR_RETURN(packed.expert, backend_->Pack(options, weights, source.slice));
    packed.bytes = packed.expert->bytes();
  } else {
    ASSIGN_OR_RETURN(packed.bytes, backend_->PackedBytes(options, weights, source.slice));
  }
  const ExpertWeights stored = SliceOf(weights, source.slice);
  packed.checkpoint_bytes = StoredBytes(stored);
  // Never from a cache: the bytes were just read, and it is these that count.
  packed.digest = checkpoint::DigestOf(stored);
  RETURN_IF_ERROR(checkpoint_->ConfirmRead(stored));
  return packed;
}

}  // namespace expertmesh::node
