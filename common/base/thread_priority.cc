#include "common/base/thread_priority.h"

#include <sys/resource.h>
#include <unistd.h>

namespace expertmesh {

namespace {

void BeAsNiceAs(int value) {
  // On Linux a thread has a nice value of its own. What a kernel refuses is only less gentle.
  setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), value);
}

}  // namespace

void LetOtherThreadsGoFirst() { BeAsNiceAs(19); }

void LetOtherThreadsHaveMost() { BeAsNiceAs(10); }

}  // namespace expertmesh
