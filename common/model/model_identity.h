// What processes that should serve the same checkpoint compare.
#ifndef EXPERTMESH_COMMON_MODEL_MODEL_IDENTITY_H_
#define EXPERTMESH_COMMON_MODEL_MODEL_IDENTITY_H_

#include <string>

#include "absl/strings/string_view.h"

namespace expertmesh {

// What the fingerprint of a process begins with that has not all files of its checkpoint; its
// outline follows.
inline constexpr absl::string_view kPartialFingerprint = "partial:";

struct ModelIdentity {
  // Of all that tells a checkpoint from another one, see checkpoint::IdentityOf.
  std::string fingerprint;
  // Of what every process has, whichever weights lie beside it. Empty: an older program.
  std::string outline;
};

// The fingerprints are equal or, where one of the two is partial, the outlines: another fine-tune
// of the same model is then not told apart.
bool SameModel(const ModelIdentity& a, const ModelIdentity& b);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_MODEL_MODEL_IDENTITY_H_
