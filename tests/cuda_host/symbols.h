// The symbols of the running program, read from its file: names for messages, and the variables
// that the threads of a kernel share.
#ifndef EXPERTMESH_TESTS_CUDA_HOST_SYMBOLS_H_
#define EXPERTMESH_TESTS_CUDA_HOST_SYMBOLS_H_

#include <cstddef>
#include <string>
#include <vector>

namespace expertmesh::cuda_host {

struct Variable {
  char* address;
  size_t bytes;
};

// The demangled name of the function at or around `address`, without its parameters; "?" if there
// is none.
std::string FunctionAt(const void* address);

// The __shared__ variables that stand in the body of `kernel` itself. References stay valid.
const std::vector<Variable>& SharedVariablesOf(const void* kernel);

// Where the caller of the harness stands: up to four functions, innermost first, the harness's own
// left out. Stack() is quick, Describe() is not.
std::vector<void*> Stack();
std::string Describe(const std::vector<void*>& stack);

}  // namespace expertmesh::cuda_host

#endif  // EXPERTMESH_TESTS_CUDA_HOST_SYMBOLS_H_
