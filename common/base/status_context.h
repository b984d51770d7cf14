// Says in an error what it is about.
#ifndef EXPERTMESH_COMMON_BASE_STATUS_CONTEXT_H_
#define EXPERTMESH_COMMON_BASE_STATUS_CONTEXT_H_

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace expertmesh {

// `status`, which is not OK, with "context: " in front of its message, and its details.
inline absl::Status WithContext(absl::string_view context, const absl::Status& status) {
  absl::Status result(status.code(), absl::StrCat(context, ": ", status.message()));
  status.ForEachPayload([&result](absl::string_view type_url, const absl::Cord& payload) {
    result.SetPayload(type_url, payload);
  });
  return result;
}

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_STATUS_CONTEXT_H_
