// A Hugging Face checkpoint folder, seen as MoE layers: config.json becomes a ModelDescription by
// the table of families, and tensors become views into the mapped safetensors files, however they
// are fused, stacked, transposed or quantised there. Only the pages that are looked at are read.
#ifndef EXPERTMESH_COMMON_CHECKPOINT_MOE_CHECKPOINT_H_
#define EXPERTMESH_COMMON_CHECKPOINT_MOE_CHECKPOINT_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/model/expert_weights.h"
#include "common/model/model_description.h"
#include "common/model/model_identity.h"
#include "common/tensor/matrix_view.h"

namespace expertmesh::checkpoint {

// Immutable and thread-safe. Views are valid for as long as the checkpoint lives, and who has
// read one calls ConfirmRead. Errors name the file and the tensor (or the configuration key).
class MoeCheckpoint {
 public:
  virtual ~MoeCheckpoint() = default;

  // Reads config.json and the headers of those safetensors files of `directory` that are there, and
  // checks that each MoE tensor is there with the right shape and a type this build can use, and
  // that there is none that config.json leaves no use for. Where files are missing that the index
  // names, so may be what is in them, until somebody asks for it.
  //   NOT_FOUND          no such folder, config.json, tensor, or no tensor file at all.
  //   INVALID_ARGUMENT   unknown family, contradictory configuration, wrong shape or type.
  //   DATA_LOSS          a file is truncated, or its header does not fit its data.
  static absl::StatusOr<std::shared_ptr<const MoeCheckpoint>> Open(const std::string& directory);

  virtual const ModelDescription& model() const = 0;

  // 64 hex digits over the configuration of the MoE layers, the name, type and shape of every
  // tensor, and the first bytes of each gate: the same however the tensors are spread over files,
  // different for another fine-tune of the same architecture. "partial:" and the outline where
  // files are missing.
  virtual const std::string& fingerprint() const = 0;

  // ModelIdentity::outline, the same whichever files are missing.
  virtual std::string outline() const { return ""; }
  ModelIdentity model_identity() const { return {fingerprint(), outline()}; }

  // NOT_FOUND when the layer is not a MoE layer, or the expert does not exist, or (Shared) the
  // layer has no shared expert, or the file that holds it is missing; names file and tensor then.
  virtual absl::StatusOr<GateWeights> Gate(uint32_t layer) const = 0;
  virtual absl::StatusOr<ExpertWeights> Expert(uint32_t layer, uint32_t expert) const = 0;
  virtual absl::StatusOr<ExpertWeights> Shared(uint32_t layer) const = 0;
  // Expert, or Shared for the id that the shared experts have where they are hosted like a routed
  // one (MoeLayerDescription::shared_expert_id).
  absl::StatusOr<ExpertWeights> Hostable(uint32_t layer, uint32_t id) const;

  // OK when what was read of these weights since they were given is what the files hold. DATA_LOSS
  // naming the file, with its size and the one expected, when it was shortened or written to
  // meanwhile, or could not be read: what was read must not be used.
  absl::Status ConfirmRead(const ExpertWeights& weights) const;
  absl::Status ConfirmRead(const GateWeights& weights) const;

  // What is worth a line in a log: where config.json and the files say different things, or where
  // this build follows one reading of config.json and other programs another. Whole sentences.
  virtual absl::Span<const std::string> warnings() const { return {}; }

  // Bytes of an expert in the checkpoint, biases and scales included; 0 when it does not exist.
  virtual uint64_t ExpertBytes(uint32_t layer, uint32_t expert) const;

  // The folder, and which versions of which files are open; both empty for one that is in no
  // folder.
  virtual std::string directory() const { return ""; }
  virtual std::string identity() const { return ""; }

  // Tells that the caller has read `weights` and will not read them again soon: they need not stay
  // in the memory of this process. Views stay valid.
  virtual void Release(const ExpertWeights& weights) const { (void)weights; }

 private:
  // Does what ConfirmRead says; some of `views` may be empty.
  virtual absl::Status ConfirmViews(absl::Span<const MatrixView> views) const {
    (void)views;
    return absl::OkStatus();
  }
};

}  // namespace expertmesh::checkpoint

#endif  // EXPERTMESH_COMMON_CHECKPOINT_MOE_CHECKPOINT_H_
