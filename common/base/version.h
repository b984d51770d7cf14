// What a program was built from. The function is in a library of its own, which changes with each
// commit: only programs link it.
#ifndef EXPERTMESH_COMMON_BASE_VERSION_H_
#define EXPERTMESH_COMMON_BASE_VERSION_H_

#include <string>

namespace expertmesh {

struct Version {
  std::string number;  // As in CMakeLists.txt, "0.1.0".
  std::string commit;  // "0123456789ab", "-dirty" behind it where files were changed; "unknown".
  std::string build_type;  // "Release".

  // "0.1.0 (commit 0123456789ab, Release)".
  std::string Text() const { return number + " (commit " + commit + ", " + build_type + ")"; }
};

const Version& ProgramVersion();

// What --version prints: the program, its version, and the instruction set that it would use here.
std::string VersionLine();

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_VERSION_H_
