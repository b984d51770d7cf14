// What must survive a kill: bytes in a folder, whole or not at all.
#ifndef EXPERTMESH_ROUTER_SERVICE_BALANCE_STATE_STORE_H_
#define EXPERTMESH_ROUTER_SERVICE_BALANCE_STATE_STORE_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace expertmesh::balance_control {

// A folder with "balance.state" and, in "balance.state.previous", what was there before. Each
// begins with a magic number, a version, its size and its checksum. Used by one process at a time,
// which a lock on the folder sees to. Not thread-safe.
class StateStore {
 public:
  // Makes the folder unless it is there.
  //   FAILED_PRECONDITION  another process uses it.
  //   else                 what the system says, with the folder's name.
  static absl::StatusOr<StateStore> Open(const std::string& folder);
  ~StateStore();
  StateStore(StateStore&& other) noexcept;
  StateStore& operator=(StateStore&&) = delete;

  // The newest that is whole; none in a folder that has no file of it. `note` says when the newest
  // could not be used.
  //   DATA_LOSS  files are there, and none is whole: what is wrong with each, and what to do.
  absl::StatusOr<std::optional<std::string>> Load(std::string* note) const;

  // Once it returns OK, `state` is what Load gives, whatever happens to process and machine; when
  // it fails, what was there before still is.
  absl::Status Save(const std::string& state) const;

 private:
  StateStore(std::string folder, int lock) : folder_(std::move(folder)), lock_(lock) {}

  std::string folder_;
  int lock_ = -1;
};

}  // namespace expertmesh::balance_control

#endif  // EXPERTMESH_ROUTER_SERVICE_BALANCE_STATE_STORE_H_
