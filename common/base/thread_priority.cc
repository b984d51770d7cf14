#include "common/base/thread_priority.h"

#include <sys/resource.h>
#include <unistd.h>

namespace expertmesh {

void LetOtherThreadsGoFirst() {
  // On Linux a thread has a nice value of its own. What a kernel refuses is only less gentle.
  constexpr int kLowest = 19;
  setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), kLowest);
}

}  // namespace expertmesh
