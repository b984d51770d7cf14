// What an error says of a message that is over a limit.
#ifndef EXPERTMESH_COMMON_WIRE_MESSAGE_SIZE_H_
#define EXPERTMESH_COMMON_WIRE_MESSAGE_SIZE_H_

#include <google/protobuf/message.h>

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace expertmesh {

// A message of the four that carry a tensor (message_codec.h), as it was or is to be sent.
struct SizedMessage {
  const google::protobuf::Message* message;  // Without its tensor.
  absl::string_view tensor_field;
  uint64_t tensor_bytes = 0;
  uint64_t bytes = 0;  // All together.
};

// "9000041 bytes, the limit is 8388608; extensions alone has 9000012 of them": names the field that
// has the most.
std::string TooLargeText(const SizedMessage& sized, uint64_t limit);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_WIRE_MESSAGE_SIZE_H_
