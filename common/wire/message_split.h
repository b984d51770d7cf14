// Taking single fields out of an encoded message, without copying or parsing them.
//
// Private to common/wire.
#ifndef EXPERTMESH_COMMON_WIRE_MESSAGE_SPLIT_H_
#define EXPERTMESH_COMMON_WIRE_MESSAGE_SPLIT_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/wire/frame.h"

namespace expertmesh {

// Wire type of strings, bytes and messages.
inline constexpr uint32_t kLengthDelimited = 2;

// One length-delimited field of a message, to be split off. Several occurrences: for bytes the last
// one counts; messages are merged, which is concatenation of their bytes.
struct SplitField {
  uint32_t number = 0;
  bool is_message = false;
  bool found = false;
  Frame value = {};
};

// Splits `frame`, a message in protobuf wire format, into `fields` and the bytes of all others.
// Looks at no more than `most_others` bytes outside of the values of `fields`.
//   INVALID_ARGUMENT  no such format; the text begins with `what`.
//   OUT_OF_RANGE      more bytes outside than that.
absl::Status SplitOff(const Frame& frame, absl::Span<SplitField> fields, absl::string_view what,
                      size_t most_others, std::string* others);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_WIRE_MESSAGE_SPLIT_H_
