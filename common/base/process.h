// What every main() does first and last.
#ifndef EXPERTMESH_COMMON_BASE_PROCESS_H_
#define EXPERTMESH_COMMON_BASE_PROCESS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"

namespace expertmesh {

// Keeps freed memory in the process (glibc would give it back and fault it in again for every
// tensor: two to three times slower) and ignores SIGPIPE. Must run before any thread or large
// allocation. The price: resident memory stays at its high-water mark, until IdleMemory finds the
// process at rest.
void TuneProcess();

// Raises the limit of open descriptors as far as the system allows: a connection is one.
void RaiseDescriptorLimit();

// Gives back what glibc keeps free at the end of the memory that the calling thread allocates from:
// malloc_trim() does not, and what is freed while there is traffic is kept. For times of rest.
void TrimThread();
// The same for memory that threads share, of whichever they are: where glibc has given out as many
// arenas as it does, further threads get them in turn. Nothing where each thread has its own.
void TrimSharedMemory();

// Turns the hyphens of flag names into underscores, in place: flags are documented and may be
// written as
// --drain-timeout, and Abseil knows underscores only. Call before parsing.
void AcceptHyphens(int argc, char** argv);

// Blocks SIGINT and SIGTERM in this and all threads started later; call before starting any.
void BlockStopSignals();

// Waits for a blocked SIGINT or SIGTERM and returns its number.
int WaitForStopSignal();

// Has WaitForStopSignal return SIGTERM, as if somebody had sent it.
void RequestStop();

// Writes "grpc_port metrics_port\n" to `path`, atomically, so that a parent that started this
// process with port 0 learns the ports. Does nothing when `path` is empty. UNAVAILABLE naming the
// path when it cannot be written.
absl::Status WritePortFile(const std::string& path, int grpc_port, int metrics_port);

// Resident set in bytes; 0 when the system does not tell.
uint64_t ResidentBytes();

// What says how many cores this process may use.
struct CoreLimits {
  // Cores it may run on.
  int affinity = 1;
  // Cores' worth of time that its control groups allow; nothing: they do not say.
  std::optional<double> quota = {};

  // As many as are of use: a part of one counts as one. At least 1.
  int available() const;
  // A sentence for the log when it is the quota that limits; else empty.
  std::string Note() const;
};
CoreLimits ReadCoreLimits();

// ReadCoreLimits().available().
int AvailableCores();

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_PROCESS_H_
