#include "client/cpp/command/cpu_time.h"

#include <time.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace expertmesh::command {
namespace {

// Finer than /proc/PID/stat, whose unit is 10 ms.
double Read(clockid_t clock) {
  timespec time = {};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

}  // namespace

absl::StatusOr<double> CpuSeconds(const std::vector<pid_t>& others) {
  double seconds = Read(CLOCK_PROCESS_CPUTIME_ID);
  for (const pid_t pid : others) {
    clockid_t clock = 0;
    if (clock_getcpuclockid(pid, &clock) != 0) {
      return absl::NotFoundError(absl::StrCat("no process ", pid, " to count the CPU time of"));
    }
    seconds += Read(clock);
  }
  return seconds;
}

}  // namespace expertmesh::command
