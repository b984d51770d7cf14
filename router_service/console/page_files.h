// The files of the page, as they are in page/.
#ifndef EXPERTMESH_ROUTER_SERVICE_CONSOLE_PAGE_FILES_H_
#define EXPERTMESH_ROUTER_SERVICE_CONSOLE_PAGE_FILES_H_

#include <vector>

#include "absl/strings/string_view.h"

namespace expertmesh::console {

struct PageFile {
  absl::string_view name;
  absl::string_view bytes;
};

// By name; they live for ever.
std::vector<PageFile> PageFiles();

}  // namespace expertmesh::console

#endif  // EXPERTMESH_ROUTER_SERVICE_CONSOLE_PAGE_FILES_H_
