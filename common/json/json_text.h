// Parsing of JSON that comes from outside: no exceptions, no silently dropped duplicate keys.
#ifndef EXPERTMESH_COMMON_JSON_JSON_TEXT_H_
#define EXPERTMESH_COMMON_JSON_JSON_TEXT_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace expertmesh {

// What the words NaN, Infinity and -Infinity are, which JSON has not and Python's json writes and
// reads: an error, or numbers that are not finite.
enum class NonFinite : uint8_t { kRefuse, kAccept };

// Parses `text`. INVALID_ARGUMENT names `source`, and the byte where the text is no JSON or the key
// that an object holds twice.
absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text, absl::string_view source,
                                         NonFinite non_finite = NonFinite::kRefuse);

// Reads a whole file of at most `max_bytes`. NOT_FOUND when there is none, INVALID_ARGUMENT when it
// is larger.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t max_bytes);

// Any bytes as a short, printable, quoted name for an error message.
std::string Quoted(absl::string_view name);

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_JSON_JSON_TEXT_H_
