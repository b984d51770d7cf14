// A bounded number of places, shared among peers so that one that takes all keeps none from others.
#ifndef EXPERTMESH_COMMON_NET_PEER_PLACES_H_
#define EXPERTMESH_COMMON_NET_PEER_PLACES_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"

namespace expertmesh::net {

// When every place is taken, a peer takes one of the host that has the most, unless its own host
// has as many; of its own host's, one of the connection that has the most. So the peers of a host
// share what the host has, and who leaks places on one connection loses them to all others.
//
// Not thread-safe.
class PeerPlaces {
 public:
  explicit PeerPlaces(size_t most) : most_(most) {}

  struct Outcome {
    bool taken = false;
    // Who has lost its place to it.
    std::optional<uint64_t> displaced = {};
  };
  // `peer` as gRPC writes it ("ipv4:10.0.0.7:41234"). `id` is another each time, and grows.
  Outcome Take(const std::string& peer, uint64_t id);
  // `id` has a place, or had one.
  void Leave(const std::string& peer, uint64_t id);

  size_t taken() const { return taken_; }

 private:
  struct Host {
    size_t taken = 0;
    // By peer; none is empty.
    absl::flat_hash_map<std::string, absl::btree_set<uint64_t>> connections;
  };

  // Who gives way to one more of `peer`.
  std::optional<uint64_t> Displace(const std::string& peer);

  const size_t most_;
  size_t taken_ = 0;
  // None is empty.
  absl::flat_hash_map<std::string, Host> hosts_;
};

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_PEER_PLACES_H_
