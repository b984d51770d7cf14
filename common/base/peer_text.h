// Texts that come from another process, made fit for logs, errors and terminals.
#ifndef EXPERTMESH_COMMON_BASE_PEER_TEXT_H_
#define EXPERTMESH_COMMON_BASE_PEER_TEXT_H_

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace expertmesh {

// More than processes of the mesh put into a message of a status (1 KiB).
inline constexpr size_t kMostPeerText = 1280;

// `text` on one line: control characters and bytes that are no UTF-8 are shown as \x1b or \n, also
// those control characters that UTF-8 has beyond ASCII. Of more than `most` bytes only the
// beginning is kept, with a mark that says how many there were.
std::string PeerText(absl::string_view text, size_t most = kMostPeerText);

// The longest beginning of `text` that has at most `bytes` bytes and ends between characters.
absl::string_view CutText(absl::string_view text, size_t bytes);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_BASE_PEER_TEXT_H_
