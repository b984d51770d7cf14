// Messages that come from another process and are shown or passed on.
#ifndef EXPERTMESH_COMMON_WIRE_PEER_MESSAGE_H_
#define EXPERTMESH_COMMON_WIRE_PEER_MESSAGE_H_

#include <google/protobuf/message.h>

#include <cstddef>

#include "common/base/peer_text.h"

namespace expertmesh {

// Makes every field of type string printable and bounded, see PeerText(), those of messages within
// included; not bytes, and not keys of maps.
void MakeTextsPrintable(google::protobuf::Message* message, size_t most = kMostPeerText);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_WIRE_PEER_MESSAGE_H_
