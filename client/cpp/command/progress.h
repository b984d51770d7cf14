// A progress bar on stderr, drawn only when that is a terminal.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_PROGRESS_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_PROGRESS_H_

#include <cstdint>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace expertmesh::command {

// Thread-safe.
class Progress {
 public:
  Progress(std::string what, uint64_t total);
  // Wipes the line.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void Add(uint64_t done);
  // For work that counts by itself, and learns of `total` late.
  void Set(uint64_t done, uint64_t total);

 private:
  void Draw() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string what_;
  const bool shown_;
  absl::Mutex mutex_;
  uint64_t done_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t total_ ABSL_GUARDED_BY(mutex_);
  int drawn_percent_ ABSL_GUARDED_BY(mutex_) = -1;
};

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_PROGRESS_H_
