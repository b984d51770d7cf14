// One JSON object of a file, read with typed getters so that nothing in it goes unnoticed.
#ifndef EXPERTMESH_COMMON_JSON_JSON_READER_H_
#define EXPERTMESH_COMMON_JSON_JSON_READER_H_

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "nlohmann/json_fwd.hpp"

namespace expertmesh {

// All errors are INVALID_ARGUMENT and name the file, where in it the key is ("model.type",
// "decoder.decoders[1].type"), its value and what is supported. A key that holds null counts as
// absent. Where a getter takes several keys they are names for the same thing, and must agree when
// more than one is there. Keeps the whole file's content alive.
//
// Every getter notes that its key is known, even when the object lacks it; Done refuses an object
// that has other keys. The notes make a reader belong to one thread.
class JsonReader {
 public:
  using Keys = std::initializer_list<absl::string_view>;

  // What a whole number may be where nothing else is said: the largest extent of a matrix that is
  // believed.
  static constexpr uint32_t kMaxSize = 1u << 24;

  // `source` is the file. NOT_FOUND when FromFile finds none; a file may have 16 MiB. NaN, Infinity
  // and -Infinity are taken as Python does; no getter gives such a number.
  static absl::StatusOr<JsonReader> FromFile(const std::string& path);
  static absl::StatusOr<JsonReader> FromText(absl::string_view text, std::string source);
  static absl::StatusOr<JsonReader> FromJson(nlohmann::json value, std::string source);

  bool Has(absl::string_view key) const { return Find(key) != nullptr; }
  // True when the key is there and holds null.
  bool IsNull(absl::string_view key) const;
  // True when the key is there and holds this string.
  bool Holds(absl::string_view key, absl::string_view text) const;
  // True when the key is there and holds -1, which some keys take for "as many as there are".
  bool HoldsMinusOne(absl::string_view key) const;
  // The first of `keys` that is there; otherwise the first of them.
  absl::string_view NameOf(Keys keys) const;
  // The value, to be read by hand. Null when absent.
  const nlohmann::json* Find(absl::string_view key) const;

  // What must be there.
  absl::StatusOr<bool> Bool(absl::string_view key) const;
  absl::StatusOr<std::string> String(absl::string_view key) const;
  // A whole number from 0 to `max`.
  absl::StatusOr<uint32_t> Whole(absl::string_view key, uint32_t max = kMaxSize) const;
  // A whole number from 1 to `max`.
  absl::StatusOr<uint32_t> Positive(Keys keys, uint32_t max = kMaxSize) const;
  absl::StatusOr<JsonReader> Object(absl::string_view key) const;
  // Those of an array that holds nothing else.
  absl::StatusOr<std::vector<JsonReader>> Objects(absl::string_view key) const;
  // An array, to be read by hand.
  absl::StatusOr<const nlohmann::json*> Array(absl::string_view key) const;

  // What may be absent.
  absl::StatusOr<bool> BoolOr(Keys keys, bool fallback) const;
  absl::StatusOr<std::string> StringOr(Keys keys, absl::string_view fallback) const;
  absl::StatusOr<uint32_t> WholeOr(Keys keys, uint32_t fallback, uint32_t max = kMaxSize) const;
  absl::StatusOr<uint32_t> PositiveOr(Keys keys, uint32_t fallback, uint32_t max = kMaxSize) const;
  // A finite number.
  absl::StatusOr<float> FloatOr(Keys keys, float fallback) const;
  // An empty object when absent. It gets those of this object's keys `inherited` that it lacks.
  absl::StatusOr<JsonReader> ObjectOrEmpty(
      absl::string_view key, absl::Span<const absl::string_view> inherited = {}) const;
  // An empty list when absent.
  absl::StatusOr<std::vector<std::string>> Strings(absl::string_view key) const;
  absl::StatusOr<std::vector<uint32_t>> WholeNumbers(absl::string_view key) const;
  // The same, where a single number stands for a list of one.
  absl::StatusOr<std::vector<uint32_t>> OneOrMore(absl::string_view key) const;

  // The key changes nothing here, whatever it holds.
  void Ignore(absl::string_view key) const { Lookup(key); }
  // INVALID_ARGUMENT when there is a key that no getter was asked for.
  absl::Status Done() const;

  // INVALID_ARGUMENT: the value of `key` is not supported, but `supported` is.
  absl::Status Refuse(absl::string_view key, absl::string_view supported) const;
  // INVALID_ARGUMENT: Source(), ": " and `message`.
  absl::Status Error(absl::string_view message) const;
  // "FILE", or "FILE: PATH" of an object in it.
  std::string Source() const;
  // "FILE: PATH.KEY", or of the object itself.
  std::string Place(absl::string_view key = {}) const;

 private:
  JsonReader(std::shared_ptr<const nlohmann::json> json, std::string source, std::string path)
      : json_(std::move(json)), source_(std::move(source)), path_(std::move(path)) {}

  static absl::StatusOr<JsonReader> Create(std::shared_ptr<const nlohmann::json> json,
                                           std::string source, std::string path);
  std::string PathOf(absl::string_view key) const;
  // A null is a value to it.
  const nlohmann::json* Lookup(absl::string_view key) const;
  // Null when absent.
  absl::StatusOr<const nlohmann::json*> Value(Keys keys) const;
  absl::StatusOr<uint32_t> Number(Keys keys, uint32_t min, uint32_t max, uint32_t fallback) const;

  std::shared_ptr<const nlohmann::json> json_;
  std::string source_;
  // Where in the file the object is; empty for the whole.
  std::string path_;
  mutable std::set<std::string, std::less<>> known_;
};

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_JSON_JSON_READER_H_
