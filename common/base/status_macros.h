// Early return on errors, for functions that return absl::Status or absl::StatusOr.
#ifndef EXPERTMESH_COMMON_BASE_STATUS_MACROS_H_
#define EXPERTMESH_COMMON_BASE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define EXPERTMESH_CONCAT_INNER(a, b) a##b
#define EXPERTMESH_CONCAT(a, b) EXPERTMESH_CONCAT_INNER(a, b)

#define RETURN_IF_ERROR(expression)                                             \
  do {                                                                          \
    if (absl::Status return_if_error_ = (expression); !return_if_error_.ok()) { \
      return return_if_error_;                                                  \
    }                                                                           \
  } while (false)

#define ASSIGN_OR_RETURN(lhs, expression) \
  ASSIGN_OR_RETURN_IMPL(EXPERTMESH_CONCAT(statusor_, __LINE__), lhs, expression)

#define ASSIGN_OR_RETURN_IMPL(statusor, lhs, expression) \
  auto statusor = (expression);                          \
  if (!statusor.ok()) {                                  \
    return std::move(statusor).status();                 \
  }                                                      \
  lhs = std::move(statusor).value()

#endif  // EXPERTMESH_COMMON_BASE_STATUS_MACROS_H_
