#include "common/base/process.h"

#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "common/base/check.h"
#include "common/base/cpu_quota.h"

namespace expertmesh {
namespace {

sigset_t StopSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return set;
}

constexpr int kTrimThreshold = 256 << 20;

}  // namespace

void TuneProcess() {
  // Both: setting one alone turns off glibc's dynamic mmap threshold.
  if (mallopt(M_TRIM_THRESHOLD, kTrimThreshold) != 1 || mallopt(M_MMAP_THRESHOLD, 32 << 20) != 1) {
    std::fprintf(stderr, "mallopt refused the trim or mmap threshold; tensors will be slower\n");
  }
  // Debian builds Abseil with its detector of deadlocks, which passes every lock of the process,
  // gRPC's as well, through one graph behind one lock. Lock order is checked by ThreadSanitizer
  // instead.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  std::signal(SIGPIPE, SIG_IGN);
}

void RaiseDescriptorLimit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
      std::fprintf(stderr, "the limit of descriptors stays as it is: %s\n", std::strerror(errno));
    }
  }
}

void TrimThread() {
  // To free a block of more than 64 KiB makes glibc look at its threshold.
  constexpr size_t kBlock = 128 << 10;
  static absl::Mutex mutex(absl::kConstInit);
  absl::MutexLock lock(&mutex);
  mallopt(M_TRIM_THRESHOLD, 0);
  void* volatile block = std::malloc(kBlock);
  std::free(block);
  mallopt(M_TRIM_THRESHOLD, kTrimThreshold);
}

void TrimSharedMemory() {
  // As glibc counts, see arena_get2() there.
  const int arenas = get_nprocs() * static_cast<int>(sizeof(long) == 4 ? 2 : 8);
  std::error_code error;
  const auto threads = std::distance(std::filesystem::directory_iterator("/proc/self/task", error),
                                     std::filesystem::directory_iterator());
  if (error || threads <= arenas) {
    return;
  }
  // All are there at the same time: one that has gone leaves its arena to the next.
  absl::BlockingCounter there(arenas);
  absl::Notification leave;
  std::vector<std::thread> trimmers;
  for (int i = 0; i < arenas; ++i) {
    trimmers.emplace_back([&there, &leave] {
      TrimThread();
      there.DecrementCount();
      leave.WaitForNotification();
    });
  }
  there.Wait();
  leave.Notify();
  for (std::thread& trimmer : trimmers) {
    trimmer.join();
  }
}

void AcceptHyphens(int argc, char** argv) {
  for (int i = 1; i < argc && std::string(argv[i]) != "--"; ++i) {
    if (argv[i][0] == '-' && argv[i][1] == '-') {
      for (char* c = argv[i] + 2; *c != '\0' && *c != '='; ++c) {
        *c = *c == '-' ? '_' : *c;
      }
    }
  }
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

void RequestStop() { EXPERTMESH_CHECK(kill(getpid(), SIGTERM) == 0); }

absl::Status WritePortFile(const std::string& path, int grpc_port, int metrics_port) {
  if (path.empty()) {
    return absl::OkStatus();
  }
  const std::string temporary = absl::StrCat(path, ".new");
  {
    std::ofstream file(temporary);
    file << grpc_port << ' ' << metrics_port << '\n';
    if (!file.flush()) {
      return absl::UnavailableError(absl::StrCat("cannot write port file ", temporary));
    }
  }
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    return absl::UnavailableError(absl::StrCat("cannot rename ", temporary, " to ", path));
  }
  return absl::OkStatus();
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

int CoreLimits::available() const {
  int cores = affinity;
  if (quota && *quota < cores) {
    cores = static_cast<int>(std::ceil(*quota));
  }
  return std::max(cores, 1);
}

std::string CoreLimits::Note() const {
  if (available() >= affinity) {
    return "";
  }
  return absl::StrCat("the CPU quota of this process's control group is ", *quota,
                      " cores: ", available(), " of ", affinity,
                      " cores are counted on (--threads says otherwise)");
}

CoreLimits ReadCoreLimits() {
  CoreLimits limits;
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    limits.affinity = std::max(1, CPU_COUNT(&set));
  }
  limits.quota = CpuQuota();
  return limits;
}

int AvailableCores() { return ReadCoreLimits().available(); }

}  // namespace expertmesh
