// What a program prints for --help and --version. A library of its own: only programs have flags.
#ifndef EXPERTMESH_COMMON_BASE_USAGE_H_
#define EXPERTMESH_COMMON_BASE_USAGE_H_

#include "absl/strings/string_view.h"

namespace expertmesh {

// `usage`, and the flags that main.cc defines; Abseil looks for them in files named like the
// program. Call before parsing.
void DescribeProgram(absl::string_view usage);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_USAGE_H_
