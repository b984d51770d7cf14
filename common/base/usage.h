// Command lines of the servers: --help, --version and flags that there are not. A library of its
// own: only programs have flags.
#ifndef EXPERTMESH_COMMON_BASE_USAGE_H_
#define EXPERTMESH_COMMON_BASE_USAGE_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace expertmesh {

// Parses the flags, which may be written --like-this; returns what else there is, the program's
// name first. Ends the process for --help, --help=TEXT, --helpfull and --version, which say what
// `usage` does and the flags of main.cc, and for a command line that makes no sense.
std::vector<char*> ParseFlags(absl::string_view usage, int argc, char** argv);

// For tests of the above. `arguments` are those behind the program's name.
//
// The answer to a request for help, or for the version, among them; nothing when there is none.
std::optional<std::string> HelpAskedFor(absl::string_view usage,
                                        const std::vector<std::string>& arguments);
// What is said of the first flag that there is not; empty when all are there.
std::string UnknownFlag(const std::vector<std::string>& arguments);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_USAGE_H_
