#include "common/wire/extensions.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace expertmesh {
namespace {

// Bytes of a name that an error message shows.
constexpr size_t kMostShown = 64;

}  // namespace

absl::Status RefuseExtensions(const google::protobuf::Map<std::string, v1::Extension>& extensions) {
  if (extensions.empty()) {
    return absl::OkStatus();
  }
  const absl::string_view name = extensions.begin()->first;
  return absl::InvalidArgumentError(
      absl::StrCat("extensions has an entry '", absl::CHexEscape(name.substr(0, kMostShown)),
                   "', and no layer of this model uses any; leave extensions out"));
}

}  // namespace expertmesh
