// Broken invariants crash loudly: EXPERTMESH_CHECK stays on in release builds. For programmer
// errors only; input, peers and configuration get an absl::Status.
#ifndef EXPERTMESH_COMMON_BASE_CHECK_H_
#define EXPERTMESH_COMMON_BASE_CHECK_H_

namespace expertmesh {

[[noreturn]] void CheckFailed(const char* file, int line, const char* condition);

}  // namespace expertmesh

#define EXPERTMESH_CHECK(condition)                              \
  do {                                                           \
    if (!(condition)) [[unlikely]] {                             \
      ::expertmesh::CheckFailed(__FILE__, __LINE__, #condition); \
    }                                                            \
  } while (false)

#endif  // EXPERTMESH_COMMON_BASE_CHECK_H_
