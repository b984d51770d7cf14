// What every main() does first and last.
#ifndef EXPERTMESH_COMMON_BASE_PROCESS_H_
#define EXPERTMESH_COMMON_BASE_PROCESS_H_

#include <cstdint>

namespace expertmesh {

// Keeps freed memory in the process (glibc would give it back and fault it in again for every tensor:
// two to three times slower) and ignores SIGPIPE. Must run before any thread or large allocation.
// The price: resident memory stays at its high-water mark.
void TuneProcess();

// Blocks SIGINT and SIGTERM in this and all threads started later; call before starting any.
void BlockStopSignals();

// Waits for a blocked SIGINT or SIGTERM and returns its number.
int WaitForStopSignal();

// Resident set in bytes; 0 when the system does not tell.
uint64_t ResidentBytes();

// Cores this process may run on; at least 1.
int AvailableCores();

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_PROCESS_H_
