#include "tests/cuda_host/die.h"

#include <unistd.h>

#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace expertmesh::cuda_host {

void Die(absl::string_view message) {
  // write: this may be a signal handler on a small stack.
  const std::string line = absl::StrCat("cuda_host: ", message, "\n");
  if (write(STDERR_FILENO, line.data(), line.size()) < 0) {
    _exit(1);
  }
  abort();
}

}  // namespace expertmesh::cuda_host
