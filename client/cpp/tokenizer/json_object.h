// One JSON object of a file, read so that nothing in it goes unnoticed.
#ifndef EXPERTMESH_CLIENT_CPP_TOKENIZER_JSON_OBJECT_H_
#define EXPERTMESH_CLIENT_CPP_TOKENIZER_JSON_OBJECT_H_

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace expertmesh::tokenizer {

// Every getter marks its key as understood; Done refuses an object that has others. All errors are
// INVALID_ARGUMENT and name the file, the key and its value. The JSON must outlive this.
class JsonObject {
 public:
  // `source` is the file, `path` where the object is in it: "model" or "decoder.decoders[1]"; empty
  // for the whole.
  static absl::StatusOr<JsonObject> Of(const nlohmann::json& value, absl::string_view source,
                                       std::string path);

  // Null when there is no such key, or a null in it.
  const nlohmann::json* Find(absl::string_view key);
  bool Has(absl::string_view key) { return Find(key) != nullptr; }

  absl::StatusOr<bool> Bool(absl::string_view key);
  absl::StatusOr<bool> Bool(absl::string_view key, bool fallback);
  absl::StatusOr<std::string> String(absl::string_view key);
  // A string of one character.
  absl::StatusOr<std::string> Character(absl::string_view key);
  // A whole number from 0 to `max`.
  absl::StatusOr<uint32_t> Number(absl::string_view key, uint32_t max);
  absl::StatusOr<JsonObject> Object(absl::string_view key);
  // The object at `index` of the array in `key`.
  absl::StatusOr<JsonObject> Object(absl::string_view key, size_t index);
  // An array; its values are read by Object above or by hand.
  absl::StatusOr<const nlohmann::json*> Array(absl::string_view key);

  // The key changes nothing here, whatever it holds.
  void Ignore(absl::string_view key) { Find(key); }

  // INVALID_ARGUMENT: the value of `key` is not supported, but `supported` is.
  absl::Status Refuse(absl::string_view key, absl::string_view supported) const;
  // INVALID_ARGUMENT when a key is left for which nobody asked.
  absl::Status Done() const;

  // "FILE: PATH.KEY", or of the object itself.
  std::string Place(absl::string_view key = {}) const;

 private:
  JsonObject(const nlohmann::json& value, absl::string_view source, std::string path)
      : value_(&value), source_(source), path_(std::move(path)) {}

  const nlohmann::json* value_;
  std::string source_;
  std::string path_;
  std::set<std::string, std::less<>> known_;
};

}  // namespace expertmesh::tokenizer

#endif  // EXPERTMESH_CLIENT_CPP_TOKENIZER_JSON_OBJECT_H_
