// Digests of experts, kept in a file beside the checkpoint. A process that trusts its own disk
// takes them from there instead of reading the weights again.
#ifndef EXPERTMESH_COMMON_CHECKPOINT_DIGEST_CACHE_H_
#define EXPERTMESH_COMMON_CHECKPOINT_DIGEST_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "common/model/expert_weights.h"

namespace expertmesh::checkpoint {

// One slice of one expert.
struct ExpertSliceId {
  uint32_t layer = 0;
  uint32_t expert = 0;
  IntermediateSlice slice = {};

  friend bool operator==(const ExpertSliceId&, const ExpertSliceId&) = default;
  friend bool operator<(const ExpertSliceId& a, const ExpertSliceId& b) {
    return a.Key() < b.Key();
  }
  template <typename H>
  friend H AbslHashValue(H hash, const ExpertSliceId& id) {
    return H::combine(std::move(hash), id.layer, id.expert, id.slice.index, id.slice.count);
  }

 private:
  std::tuple<uint32_t, uint32_t, uint32_t, uint32_t> Key() const {
    return {layer, expert, slice.count, slice.index};
  }
};

// The file FOLDER/.expertmesh-digests.json, in memory. Good for one version of the checkpoint's
// files only (MoeCheckpoint::identity: inode, size and time of change of each). Not thread-safe.
class DigestCache {
 public:
  // An empty `folder`: nothing is read or written.
  DigestCache(std::string folder, std::string identity);

  // Replaces what is here by what the file has for `identity`. No file, or one for other versions:
  // OK, and nothing. DATA_LOSS when it is damaged: nothing, and the next Save replaces it.
  absl::Status Load();

  std::optional<uint64_t> Find(const ExpertSliceId& id) const;
  void Add(const ExpertSliceId& id, uint64_t digest) { digests_[id] = digest; }
  size_t size() const { return digests_.size(); }

  // Writes a new file, which replaces the old one once it is on the disk.
  // UNAVAILABLE when the folder cannot be written to.
  absl::Status Save() const;

 private:
  std::string Path() const;

  const std::string folder_;
  const std::string identity_;
  absl::btree_map<ExpertSliceId, uint64_t> digests_;
};

}  // namespace expertmesh::checkpoint

#endif  // EXPERTMESH_COMMON_CHECKPOINT_DIGEST_CACHE_H_
