// A CPU backend for the conformance suite.
#ifndef EXPERTMESH_TESTS_UNIT_COMMON_EXPERTS_CPU_BACKEND_CASE_H_
#define EXPERTMESH_TESTS_UNIT_COMMON_EXPERTS_CPU_BACKEND_CASE_H_

#include <string>
#include <utility>

#include "common/experts/cpu_backend.h"
#include "tests/unit/common/experts/backend_conformance.h"

namespace expertmesh::experts {

inline BackendCase CpuCase(std::string name, Dtype dtype, double tolerance,
                           WeightStorage storage = WeightStorage::kExpanded) {
  BackendCase backend_case;
  backend_case.name = std::move(name);
  backend_case.make = [dtype, storage](int threads) {
    return MakeCpuBackend({dtype, threads, storage});
  };
  backend_case.stores_checkpoint_bytes = storage == WeightStorage::kCompressed;
  backend_case.tolerance = tolerance;
  return backend_case;
}

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_TESTS_UNIT_COMMON_EXPERTS_CPU_BACKEND_CASE_H_
