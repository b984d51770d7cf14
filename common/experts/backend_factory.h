// The one place that makes backends. A new one adds its entry to the table in backend_factory.cc.
#ifndef EXPERTMESH_COMMON_EXPERTS_BACKEND_FACTORY_H_
#define EXPERTMESH_COMMON_EXPERTS_BACKEND_FACTORY_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/experts/backend.h"

namespace expertmesh::experts {

// Makes the backend of that name: "cpu". Thread-safe.
//   INVALID_ARGUMENT  there is none of that name, or it cannot do what an option asks for.
absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(absl::string_view name,
                                                     const BackendOptions& options);

}  // namespace expertmesh::experts

#endif  // EXPERTMESH_COMMON_EXPERTS_BACKEND_FACTORY_H_
