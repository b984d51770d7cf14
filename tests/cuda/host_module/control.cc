// Says to the harness what EXPERTMESH_CUDA_HOST says, words separated by spaces, when the module is
// opened:
//
//   no_driver        there is none
//   sticky=SECONDS   the first call after so long fails, and with it the device
#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "tests/cuda_host/cuda_host.h"

namespace expertmesh::cuda_host {
namespace {

bool Obey() {
  const char* const words = std::getenv("EXPERTMESH_CUDA_HOST");
  for (absl::string_view word : absl::StrSplit(words == nullptr ? "" : words, ' ')) {
    double seconds = 0;
    if (word == "no_driver") {
      RemoveDriver();
    } else if (absl::ConsumePrefix(&word, "sticky=") && absl::SimpleAtod(word, &seconds)) {
      std::thread([seconds] {
        std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
        FailCall(1, Failure::kSticky);
      }).detach();
    }
  }
  return true;
}

[[maybe_unused]] const bool obeyed = Obey();

}  // namespace
}  // namespace expertmesh::cuda_host
