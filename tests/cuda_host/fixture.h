// What tests of CUDA code on the harness share: a start from nothing, several seeds, leaks, and
// every call failing once.
#ifndef EXPERTMESH_TESTS_CUDA_HOST_FIXTURE_H_
#define EXPERTMESH_TESTS_CUDA_HOST_FIXTURE_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gtest/gtest.h"
#include "tests/cuda_host/cuda_host.h"

namespace expertmesh::cuda_host {

// Nothing that the device has to do with may be left over.
inline void ExpectNoLeaks() { EXPECT_TRUE(Leaks().empty()) << absl::StrJoin(Leaks(), "\n"); }

// Runs `body` under `count` seeds, each from nothing, and each must leave nothing.
inline void ForSeeds(uint64_t count, const std::function<void()>& body) {
  for (uint64_t seed = 1; seed <= count; ++seed) {
    const testing::ScopedTrace trace(__FILE__, __LINE__, absl::StrCat("seed ", seed));
    Reset(seed);
    body();
    ExpectNoLeaks();
  }
}

// Runs `body` once as it is, and then once for each failure at each of the calls that it makes.
// `body` is told what fails (empty: nothing) and must leave nothing however it ends.
inline void ForEachFailure(const std::function<void(const std::string& failing)>& body) {
  Reset(1);
  body("");
  ExpectNoLeaks();
  const int64_t calls = CallCount();
  const struct {
    Failure failure;
    const char* name;
  } failures[] = {{Failure::kOutOfMemory, "out of memory"},
                  {Failure::kLaunchFailure, "launch failure"},
                  {Failure::kSticky, "illegal address"},
                  {Failure::kPlain, "unknown error"}};
  for (const auto& [failure, name] : failures) {
    for (int64_t n = 1; n <= calls; ++n) {
      const std::string failing = absl::StrCat(name, " at call ", n, " of ", calls);
      const testing::ScopedTrace trace(__FILE__, __LINE__, failing);
      Reset(1);
      FailCall(n, failure);
      body(failing);
      EXPECT_TRUE(FailureHappened()) << "fewer calls than in the run without failures";
      ExpectNoLeaks();
    }
  }
}

// Begins from nothing with seed 1; expects no leaks at the end.
class CudaHostTest : public testing::Test {
 protected:
  CudaHostTest() {
    // The harness may have threads.
    testing::GTEST_FLAG(death_test_style) = "threadsafe";
    Reset(1);
  }
  void TearDown() override { ExpectNoLeaks(); }
};

}  // namespace expertmesh::cuda_host

#endif  // EXPERTMESH_TESTS_CUDA_HOST_FIXTURE_H_
