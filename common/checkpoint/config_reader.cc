#include "common/checkpoint/config_reader.h"

#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/json_text.h"
#include "nlohmann/json.hpp"

namespace expertmesh::checkpoint {
namespace {

using nlohmann::json;

// Config files of real models have some kilobytes.
constexpr size_t kMaxConfigBytes = 16 * 1024 * 1024;

std::string Shown(const json& value) {
  constexpr size_t kMaxLength = 80;
  std::string text = value.dump(-1, ' ', true);
  if (text.size() > kMaxLength) {
    text = absl::StrCat(text.substr(0, kMaxLength), "...");
  }
  return text;
}

}  // namespace

absl::StatusOr<ConfigReader> ConfigReader::FromFile(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kMaxConfigBytes));
  return FromText(text, path);
}

absl::StatusOr<ConfigReader> ConfigReader::FromText(absl::string_view text, std::string source) {
  ASSIGN_OR_RETURN(json parsed, ParseJson(text, source));
  if (!parsed.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(source, ": must hold a JSON object"));
  }
  return ConfigReader(std::make_shared<const json>(std::move(parsed)), std::move(source));
}

bool ConfigReader::Has(absl::string_view key) const {
  const auto found = json_->find(key);
  return found != json_->end() && !found->is_null();
}

bool ConfigReader::IsNull(absl::string_view key) const {
  const auto found = json_->find(key);
  return found != json_->end() && found->is_null();
}

bool ConfigReader::Holds(absl::string_view key, absl::string_view text) const {
  const auto found = json_->find(key);
  return found != json_->end() && found->is_string() &&
         found->get_ref<const std::string&>() == text;
}

bool ConfigReader::HoldsMinusOne(absl::string_view key) const {
  const auto found = json_->find(key);
  return found != json_->end() && *found == -1;
}

absl::StatusOr<ConfigReader> ConfigReader::Object(
    absl::string_view key, absl::Span<const absl::string_view> inherited) const {
  ASSIGN_OR_RETURN(const json* value, Value({key}));
  json object = json::object();
  if (value != nullptr) {
    if (!value->is_object()) {
      return Wrong(key, *value, "an object");
    }
    object = *value;
  }
  for (const absl::string_view name : inherited) {
    if (Has(name) && (!object.contains(name) || object[std::string(name)].is_null())) {
      object[std::string(name)] = *json_->find(name);
    }
  }
  return ConfigReader(std::make_shared<const json>(std::move(object)),
                      absl::StrCat(source_, ": ", key));
}

absl::string_view ConfigReader::NameOf(Keys keys) const {
  for (const absl::string_view key : keys) {
    if (Has(key)) {
      return key;
    }
  }
  return *keys.begin();
}

absl::StatusOr<const json*> ConfigReader::Value(Keys keys) const {
  const json* value = nullptr;
  absl::string_view first;
  for (const absl::string_view key : keys) {
    const auto found = json_->find(key);
    if (found == json_->end() || found->is_null()) {
      continue;
    }
    if (value != nullptr && *value != *found) {
      return Error(absl::StrCat(first, " = ", Shown(*value), " contradicts ", key, " = ",
                                Shown(*found), "; keep one of them"));
    }
    if (value == nullptr) {
      value = &*found;
      first = key;
    }
  }
  return value;
}

absl::StatusOr<uint32_t> ConfigReader::Number(Keys keys, uint32_t min, uint32_t max,
                                              uint32_t fallback) const {
  ASSIGN_OR_RETURN(const json* value, Value(keys));
  if (value == nullptr) {
    return fallback;
  }
  if (!value->is_number_unsigned() || value->get<uint64_t>() < min ||
      value->get<uint64_t>() > max) {
    return Wrong(NameOf(keys), *value, absl::StrCat("a whole number from ", min, " to ", max));
  }
  return static_cast<uint32_t>(value->get<uint64_t>());
}

absl::StatusOr<uint32_t> ConfigReader::Positive(Keys keys, uint32_t max) const {
  ASSIGN_OR_RETURN(const json* value, Value(keys));
  if (value == nullptr) {
    return Error(absl::StrCat("has no ", absl::StrJoin(keys, " or ")));
  }
  return Number(keys, 1, max, 0);
}

absl::StatusOr<uint32_t> ConfigReader::PositiveOr(Keys keys, uint32_t fallback,
                                                  uint32_t max) const {
  return Number(keys, 1, max, fallback);
}

absl::StatusOr<uint32_t> ConfigReader::WholeOr(Keys keys, uint32_t fallback, uint32_t max) const {
  return Number(keys, 0, max, fallback);
}

absl::StatusOr<bool> ConfigReader::BoolOr(Keys keys, bool fallback) const {
  ASSIGN_OR_RETURN(const json* value, Value(keys));
  if (value == nullptr) {
    return fallback;
  }
  if (!value->is_boolean()) {
    return Wrong(NameOf(keys), *value, "true or false");
  }
  return value->get<bool>();
}

absl::StatusOr<float> ConfigReader::FloatOr(Keys keys, float fallback) const {
  ASSIGN_OR_RETURN(const json* value, Value(keys));
  if (value == nullptr) {
    return fallback;
  }
  if (!value->is_number() || !std::isfinite(static_cast<float>(value->get<double>()))) {
    return Wrong(NameOf(keys), *value, "a finite number");
  }
  return static_cast<float>(value->get<double>());
}

absl::StatusOr<std::string> ConfigReader::StringOr(Keys keys, absl::string_view fallback) const {
  ASSIGN_OR_RETURN(const json* value, Value(keys));
  if (value == nullptr) {
    return std::string(fallback);
  }
  if (!value->is_string()) {
    return Wrong(NameOf(keys), *value, "a string");
  }
  return value->get<std::string>();
}

absl::StatusOr<std::vector<std::string>> ConfigReader::Strings(absl::string_view key) const {
  std::vector<std::string> strings;
  ASSIGN_OR_RETURN(const json* value, Value({key}));
  if (value == nullptr) {
    return strings;
  }
  if (!value->is_array()) {
    return Wrong(key, *value, "an array of strings");
  }
  for (const json& element : *value) {
    if (!element.is_string()) {
      return Wrong(key, *value, "an array of strings");
    }
    strings.push_back(element.get<std::string>());
  }
  return strings;
}

absl::StatusOr<std::vector<uint32_t>> ConfigReader::WholeNumbers(absl::string_view key) const {
  std::vector<uint32_t> numbers;
  ASSIGN_OR_RETURN(const json* value, Value({key}));
  if (value == nullptr) {
    return numbers;
  }
  if (!value->is_array()) {
    return Wrong(key, *value, "an array of whole numbers");
  }
  for (const json& element : *value) {
    if (!element.is_number_unsigned() || element.get<uint64_t>() > kMaxSize) {
      return Wrong(key, *value, "an array of whole numbers");
    }
    numbers.push_back(static_cast<uint32_t>(element.get<uint64_t>()));
  }
  return numbers;
}

absl::StatusOr<std::vector<uint32_t>> ConfigReader::OneOrMore(absl::string_view key) const {
  ASSIGN_OR_RETURN(const json* value, Value({key}));
  if (value != nullptr && value->is_number()) {
    ASSIGN_OR_RETURN(const uint32_t number, WholeOr({key}, 0));
    return std::vector<uint32_t>{number};
  }
  return WholeNumbers(key);
}

absl::Status ConfigReader::Error(absl::string_view message) const {
  return absl::InvalidArgumentError(absl::StrCat(source_, ": ", message));
}

absl::Status ConfigReader::Wrong(absl::string_view key, const json& value,
                                 absl::string_view expected) const {
  return Error(absl::StrCat(key, " = ", Shown(value), " must be ", expected));
}

}  // namespace expertmesh::checkpoint
