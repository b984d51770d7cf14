// Environment variables of this process.
#ifndef EXPERTMESH_COMMON_BASE_ENVIRONMENT_H_
#define EXPERTMESH_COMMON_BASE_ENVIRONMENT_H_

#include <cstdlib>
#include <string>

namespace expertmesh {

// The value of `name`; empty when it is not set.
inline std::string EnvironmentVariable(const std::string& name) {
  const char* const value = std::getenv(name.c_str());
  return value == nullptr ? "" : value;
}

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_ENVIRONMENT_H_
