// Files that are whole or not there, whatever happens while they are written.
#ifndef EXPERTMESH_COMMON_BASE_DURABLE_FILE_H_
#define EXPERTMESH_COMMON_BASE_DURABLE_FILE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace expertmesh {

// Puts a file with `bytes` in the place of `path`: once it returns OK, they are on the disk; when
// it fails, what was there before still is. Several processes may do so at a time, and the last one
// wins.
//   UNAVAILABLE  what the system says, with the path.
absl::Status WriteDurably(const std::string& path, absl::string_view bytes);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_DURABLE_FILE_H_
