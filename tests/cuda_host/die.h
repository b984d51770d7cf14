// How the harness ends a test.
#ifndef EXPERTMESH_TESTS_CUDA_HOST_DIE_H_
#define EXPERTMESH_TESTS_CUDA_HOST_DIE_H_

#include "absl/strings/string_view.h"

namespace expertmesh::cuda_host {

// Prints "cuda_host: MESSAGE" and aborts.
[[noreturn]] void Die(absl::string_view message);

}  // namespace expertmesh::cuda_host

#endif  // EXPERTMESH_TESTS_CUDA_HOST_DIE_H_
