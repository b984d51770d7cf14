// Typed access to config.json. Every error is INVALID_ARGUMENT and names the file, the key and the
// value.
#ifndef EXPERTMESH_COMMON_CHECKPOINT_CONFIG_READER_H_
#define EXPERTMESH_COMMON_CHECKPOINT_CONFIG_READER_H_

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "nlohmann/json_fwd.hpp"

namespace expertmesh::checkpoint {

// Immutable. A key that holds null counts as absent. Where several names are given they are names
// for the same thing, and must agree when more than one is there.
class ConfigReader {
 public:
  using Keys = std::initializer_list<absl::string_view>;

  // Largest extent of a matrix that is believed.
  static constexpr uint32_t kMaxSize = 1u << 24;

  // NOT_FOUND when there is no such file.
  static absl::StatusOr<ConfigReader> FromFile(const std::string& path);
  static absl::StatusOr<ConfigReader> FromText(absl::string_view text, std::string source);

  bool Has(absl::string_view key) const;
  // True when the key is there and holds null.
  bool IsNull(absl::string_view key) const;
  // True when the key is there and holds this string.
  bool Holds(absl::string_view key, absl::string_view text) const;
  // True when the key is there and holds -1, which some keys take for "as many as there are".
  bool HoldsMinusOne(absl::string_view key) const;

  // The object that `key` holds, with those of this object's keys `inherited` that it lacks; an
  // empty object when there is none. Its errors name the key, too.
  absl::StatusOr<ConfigReader> Object(absl::string_view key,
                                      absl::Span<const absl::string_view> inherited = {}) const;

  // The first of `keys` that is there; otherwise the first of them.
  absl::string_view NameOf(Keys keys) const;

  // A whole number from 1 to `max`.
  absl::StatusOr<uint32_t> Positive(Keys keys, uint32_t max = kMaxSize) const;
  absl::StatusOr<uint32_t> PositiveOr(Keys keys, uint32_t fallback, uint32_t max = kMaxSize) const;
  // A whole number from 0 to `max`.
  absl::StatusOr<uint32_t> WholeOr(Keys keys, uint32_t fallback, uint32_t max = kMaxSize) const;
  absl::StatusOr<bool> BoolOr(Keys keys, bool fallback) const;
  // A finite number.
  absl::StatusOr<float> FloatOr(Keys keys, float fallback) const;
  absl::StatusOr<std::string> StringOr(Keys keys, absl::string_view fallback) const;
  // Empty when absent.
  absl::StatusOr<std::vector<std::string>> Strings(absl::string_view key) const;
  absl::StatusOr<std::vector<uint32_t>> WholeNumbers(absl::string_view key) const;
  // The same, where a single number stands for a list of one.
  absl::StatusOr<std::vector<uint32_t>> OneOrMore(absl::string_view key) const;

  // INVALID_ARGUMENT "SOURCE: message".
  absl::Status Error(absl::string_view message) const;

  const std::string& source() const { return source_; }

 private:
  ConfigReader(std::shared_ptr<const nlohmann::json> json, std::string source)
      : json_(std::move(json)), source_(std::move(source)) {}

  // Null when absent.
  absl::StatusOr<const nlohmann::json*> Value(Keys keys) const;
  absl::StatusOr<uint32_t> Number(Keys keys, uint32_t min, uint32_t max, uint32_t fallback) const;
  absl::Status Wrong(absl::string_view key, const nlohmann::json& value,
                     absl::string_view expected) const;

  std::shared_ptr<const nlohmann::json> json_;
  std::string source_;
};

}  // namespace expertmesh::checkpoint

#endif  // EXPERTMESH_COMMON_CHECKPOINT_CONFIG_READER_H_
