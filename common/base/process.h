// What every main() does first and last.
#ifndef EXPERTMESH_COMMON_BASE_PROCESS_H_
#define EXPERTMESH_COMMON_BASE_PROCESS_H_

#include <cstdint>
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

// Turns the hyphens of flag names into underscores, in place: flags are documented and may be
// written as
// --drain-timeout, and Abseil knows underscores only. Call before parsing.
void AcceptHyphens(int argc, char** argv);

// Blocks SIGINT and SIGTERM in this and all threads started later; call before starting any.
void BlockStopSignals();

// Waits for a blocked SIGINT or SIGTERM and returns its number.
int WaitForStopSignal();

// Writes "grpc_port metrics_port\n" to `path`, atomically, so that a parent that started this
// process with port 0 learns the ports. Does nothing when `path` is empty. UNAVAILABLE naming the
// path when it cannot be written.
absl::Status WritePortFile(const std::string& path, int grpc_port, int metrics_port);

// Resident set in bytes; 0 when the system does not tell.
uint64_t ResidentBytes();

// Cores this process may run on; at least 1.
int AvailableCores();

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_PROCESS_H_
