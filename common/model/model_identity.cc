#include "common/model/model_identity.h"

#include "absl/strings/match.h"

namespace expertmesh {
namespace {

bool IsPartial(const ModelIdentity& identity) {
  return absl::StartsWith(identity.fingerprint, kPartialFingerprint);
}

}  // namespace

bool SameModel(const ModelIdentity& a, const ModelIdentity& b) {
  if (IsPartial(a) || IsPartial(b)) {
    return !a.outline.empty() && a.outline == b.outline;
  }
  return a.fingerprint == b.fingerprint;
}

}  // namespace expertmesh
