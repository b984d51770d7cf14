// How rows travel between this router and its nodes.
#ifndef EXPERTMESH_ROUTER_SERVICE_MESH_WIRE_ENCODING_H_
#define EXPERTMESH_ROUTER_SERVICE_MESH_WIRE_ENCODING_H_

#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/tensor/dtype.h"

namespace expertmesh::mesh {

// What one link carries. All types of the wire are allowed.
struct WireEncoding {
  // On the way to the node.
  Dtype hidden_states = Dtype::kF32;
  // On the way back.
  Dtype partials = Dtype::kF32;
  // Frames have checksums, both ways.
  bool checksums = false;
};

// Thread-safe once it is as it should be.
class WireEncodings {
 public:
  // Each text is a list, by commas, of one type for all links (auto, which is `activation_dtype`,
  // when it is left out) and of exceptions ADDRESS=TYPE; a type is auto or a WireName.
  // ADDRESS is a node's as the topology lists it; one that is never seen does nothing.
  //   INVALID_ARGUMENT  names the flag (--wire-hidden-states, --wire-partials) and the entry.
  static absl::StatusOr<WireEncodings> Parse(absl::string_view hidden_states,
                                             absl::string_view partials, Dtype activation_dtype);

  WireEncoding For(const std::string& address) const;
  // That of addresses without an exception.
  WireEncoding OfAll() const { return {hidden_states_.of_all, partials_.of_all, checksums_}; }

  // From here on frames of all links carry checksums.
  void AddChecksums() { checksums_ = true; }

 private:
  // What one flag says.
  struct Direction {
    Dtype of_all = Dtype::kF32;
    absl::flat_hash_map<std::string, Dtype> of_address;
  };
  static absl::StatusOr<Direction> ParseDirection(absl::string_view flag, absl::string_view text,
                                                  Dtype activation_dtype);
  static Dtype Choose(const Direction& direction, const std::string& address);

  Direction hidden_states_;
  Direction partials_;
  bool checksums_ = false;
};

}  // namespace expertmesh::mesh

#endif  // EXPERTMESH_ROUTER_SERVICE_MESH_WIRE_ENCODING_H_
