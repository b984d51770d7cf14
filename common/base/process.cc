#include "common/base/process.h"

#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <fstream>

#include "common/base/check.h"

namespace expertmesh {
namespace {

sigset_t StopSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return set;
}

}  // namespace

void TuneProcess() {
  // Both: setting one alone turns off glibc's dynamic mmap threshold.
  if (mallopt(M_TRIM_THRESHOLD, 256 << 20) != 1 || mallopt(M_MMAP_THRESHOLD, 32 << 20) != 1) {
    std::fprintf(stderr, "mallopt refused the trim or mmap threshold; tensors will be slower\n");
  }
  std::signal(SIGPIPE, SIG_IGN);
}

void BlockStopSignals() {
  const sigset_t set = StopSignals();
  EXPERTMESH_CHECK(pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);
}

int WaitForStopSignal() {
  const sigset_t set = StopSignals();
  int signal = 0;
  EXPERTMESH_CHECK(sigwait(&set, &signal) == 0);
  return signal;
}

uint64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  uint64_t total = 0;
  uint64_t resident = 0;
  if (!(statm >> total >> resident)) {
    return 0;
  }
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

int AvailableCores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) {
    return 1;
  }
  const int count = CPU_COUNT(&set);
  return count > 0 ? count : 1;
}

}  // namespace expertmesh
