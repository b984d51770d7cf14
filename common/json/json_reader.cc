#include "common/json/json_reader.h"

#include <cmath>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "common/json/json_text.h"
#include "nlohmann/json.hpp"

namespace expertmesh {
namespace {

using nlohmann::json;

// Config files of real models have some kilobytes.
constexpr size_t kMaxFileBytes = 16 * 1024 * 1024;

// A value as an error message shows it.
std::string Shown(const json& value) {
  constexpr size_t kMaxLength = 200;
  if (value.is_number_float() && !std::isfinite(value.get<double>())) {
    const double number = value.get<double>();
    return std::isnan(number) ? "NaN" : number > 0 ? "Infinity" : "-Infinity";
  }
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true);
  if (text.size() > kMaxLength) {
    text.resize(kMaxLength);
    text += "...";
  }
  return text;
}

std::string WholeNumberFrom(uint32_t min, uint32_t max) {
  return absl::StrCat("a whole number from ", min, " to ", max);
}

}  // namespace

absl::StatusOr<JsonReader> JsonReader::FromFile(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kMaxFileBytes));
  return FromText(text, path);
}

absl::StatusOr<JsonReader> JsonReader::FromText(absl::string_view text, std::string source) {
  ASSIGN_OR_RETURN(json parsed, ParseJson(text, source, NonFinite::kAccept));
  return FromJson(std::move(parsed), std::move(source));
}

absl::StatusOr<JsonReader> JsonReader::FromJson(json value, std::string source) {
  return Create(std::make_shared<const json>(std::move(value)), std::move(source), "");
}

absl::StatusOr<JsonReader> JsonReader::Create(std::shared_ptr<const json> value, std::string source,
                                              std::string path) {
  JsonReader reader(std::move(value), std::move(source), std::move(path));
  if (!reader.json_->is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(reader.Place(), " is ", Shown(*reader.json_), "; supported: an object"));
  }
  return reader;
}

const json* JsonReader::Lookup(absl::string_view key) const {
  known_.emplace(key);
  const auto found = json_->find(key);
  return found == json_->end() ? nullptr : &*found;
}

const json* JsonReader::Find(absl::string_view key) const {
  const json* const value = Lookup(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

bool JsonReader::IsNull(absl::string_view key) const {
  const json* const value = Lookup(key);
  return value != nullptr && value->is_null();
}

bool JsonReader::Holds(absl::string_view key, absl::string_view text) const {
  const json* const value = Find(key);
  return value != nullptr && value->is_string() && value->get_ref<const std::string&>() == text;
}

bool JsonReader::HoldsMinusOne(absl::string_view key) const {
  const json* const value = Find(key);
  return value != nullptr && *value == -1;
}

absl::string_view JsonReader::NameOf(Keys keys) const {
  for (const absl::string_view key : keys) {
    if (Has(key)) {
      return key;
    }
  }
  return *keys.begin();
}

absl::StatusOr<const json*> JsonReader::Value(Keys keys) const {
  const json* value = nullptr;
  absl::string_view first;
  for (const absl::string_view key : keys) {
    const json* const found = Find(key);
    if (found == nullptr) {
      continue;
    }
    if (value != nullptr && *value != *found) {
      return Error(absl::StrCat(first, " = ", Shown(*value), " contradicts ", key, " = ",
                                Shown(*found), "; keep one of them"));
    }
    if (value == nullptr) {
      value = found;
      first = key;
    }
  }
  return value;
}

absl::StatusOr<uint32_t> JsonReader::Number(Keys keys, uint32_t min, uint32_t max,
                                            uint32_t fallback) const {
  ASSIGN_OR_RETURN(const json* const value, Value(keys));
  if (value == nullptr) {
    return fallback;
  }
  if (!value->is_number_unsigned() || value->get<uint64_t>() < min ||
      value->get<uint64_t>() > max) {
    return Refuse(NameOf(keys), WholeNumberFrom(min, max));
  }
  return static_cast<uint32_t>(value->get<uint64_t>());
}

absl::StatusOr<bool> JsonReader::Bool(absl::string_view key) const {
  if (!Has(key)) {
    return Refuse(key, "true and false");
  }
  return BoolOr({key}, false);
}

absl::StatusOr<std::string> JsonReader::String(absl::string_view key) const {
  if (!Has(key)) {
    return Refuse(key, "a string");
  }
  return StringOr({key}, "");
}

absl::StatusOr<uint32_t> JsonReader::Whole(absl::string_view key, uint32_t max) const {
  if (!Has(key)) {
    return Refuse(key, WholeNumberFrom(0, max));
  }
  return Number({key}, 0, max, 0);
}

absl::StatusOr<uint32_t> JsonReader::Positive(Keys keys, uint32_t max) const {
  if (!Has(NameOf(keys))) {
    return Refuse(keys.size() > 1 ? absl::StrJoin(keys, " or ") : std::string(*keys.begin()),
                  WholeNumberFrom(1, max));
  }
  return Number(keys, 1, max, 0);
}

absl::StatusOr<JsonReader> JsonReader::Object(absl::string_view key) const {
  const json* const value = Find(key);
  if (value == nullptr) {
    return Refuse(key, "an object");
  }
  // Shares ownership of the whole.
  return Create({json_, value}, source_, PathOf(key));
}

absl::StatusOr<std::vector<JsonReader>> JsonReader::Objects(absl::string_view key) const {
  ASSIGN_OR_RETURN(const json* const array, Array(key));
  std::vector<JsonReader> objects;
  for (const json& value : *array) {
    const std::string path = absl::StrCat(PathOf(key), "[", objects.size(), "]");
    ASSIGN_OR_RETURN(JsonReader object, Create({json_, &value}, source_, path));
    objects.push_back(std::move(object));
  }
  return objects;
}

absl::StatusOr<const json*> JsonReader::Array(absl::string_view key) const {
  const json* const value = Find(key);
  if (value == nullptr || !value->is_array()) {
    return Refuse(key, "an array");
  }
  return value;
}

absl::StatusOr<bool> JsonReader::BoolOr(Keys keys, bool fallback) const {
  ASSIGN_OR_RETURN(const json* const value, Value(keys));
  if (value == nullptr) {
    return fallback;
  }
  if (!value->is_boolean()) {
    return Refuse(NameOf(keys), "true and false");
  }
  return value->get<bool>();
}

absl::StatusOr<std::string> JsonReader::StringOr(Keys keys, absl::string_view fallback) const {
  ASSIGN_OR_RETURN(const json* const value, Value(keys));
  if (value == nullptr) {
    return std::string(fallback);
  }
  if (!value->is_string()) {
    return Refuse(NameOf(keys), "a string");
  }
  return value->get<std::string>();
}

absl::StatusOr<uint32_t> JsonReader::WholeOr(Keys keys, uint32_t fallback, uint32_t max) const {
  return Number(keys, 0, max, fallback);
}

absl::StatusOr<uint32_t> JsonReader::PositiveOr(Keys keys, uint32_t fallback, uint32_t max) const {
  return Number(keys, 1, max, fallback);
}

absl::StatusOr<float> JsonReader::FloatOr(Keys keys, float fallback) const {
  ASSIGN_OR_RETURN(const json* const value, Value(keys));
  if (value == nullptr) {
    return fallback;
  }
  if (!value->is_number() || !std::isfinite(static_cast<float>(value->get<double>()))) {
    return Refuse(NameOf(keys), "a finite number");
  }
  return static_cast<float>(value->get<double>());
}

absl::StatusOr<JsonReader> JsonReader::ObjectOrEmpty(
    absl::string_view key, absl::Span<const absl::string_view> inherited) const {
  const json* const value = Find(key);
  if (value != nullptr && !value->is_object()) {
    return Refuse(key, "an object");
  }
  json object = value != nullptr ? *value : json::object();
  for (const absl::string_view name : inherited) {
    const auto own = object.find(name);
    if (Has(name) && (own == object.end() || own->is_null())) {
      object[std::string(name)] = *Find(name);
    }
  }
  return Create(std::make_shared<const json>(std::move(object)), source_, PathOf(key));
}

absl::StatusOr<std::vector<std::string>> JsonReader::Strings(absl::string_view key) const {
  std::vector<std::string> strings;
  const json* const value = Find(key);
  if (value == nullptr) {
    return strings;
  }
  if (!value->is_array()) {
    return Refuse(key, "an array of strings");
  }
  for (const json& element : *value) {
    if (!element.is_string()) {
      return Refuse(key, "an array of strings");
    }
    strings.push_back(element.get<std::string>());
  }
  return strings;
}

absl::StatusOr<std::vector<uint32_t>> JsonReader::WholeNumbers(absl::string_view key) const {
  std::vector<uint32_t> numbers;
  const json* const value = Find(key);
  if (value == nullptr) {
    return numbers;
  }
  if (!value->is_array()) {
    return Refuse(key, "an array of whole numbers");
  }
  for (const json& element : *value) {
    if (!element.is_number_unsigned() || element.get<uint64_t>() > kMaxSize) {
      return Refuse(key, "an array of whole numbers");
    }
    numbers.push_back(static_cast<uint32_t>(element.get<uint64_t>()));
  }
  return numbers;
}

absl::StatusOr<std::vector<uint32_t>> JsonReader::OneOrMore(absl::string_view key) const {
  if (const json* const value = Find(key); value != nullptr && value->is_number()) {
    ASSIGN_OR_RETURN(const uint32_t number, Whole(key));
    return std::vector<uint32_t>{number};
  }
  return WholeNumbers(key);
}

absl::Status JsonReader::Done() const {
  for (const auto& item : json_->items()) {
    if (!known_.contains(item.key())) {
      return absl::InvalidArgumentError(
          absl::StrCat(Place(absl::CHexEscape(item.key().substr(0, 200))), " is ",
                       Shown(item.value()), ", and what that asks for is unknown here"));
    }
  }
  return absl::OkStatus();
}

absl::Status JsonReader::Refuse(absl::string_view key, absl::string_view supported) const {
  const auto found = json_->find(key);
  const std::string what = found == json_->end() ? "missing" : Shown(*found);
  return absl::InvalidArgumentError(
      absl::StrCat(Place(key), " is ", what, "; supported: ", supported));
}

absl::Status JsonReader::Error(absl::string_view message) const {
  return absl::InvalidArgumentError(absl::StrCat(Source(), ": ", message));
}

std::string JsonReader::Source() const {
  return absl::StrCat(source_, path_.empty() ? "" : ": ", path_);
}

std::string JsonReader::Place(absl::string_view key) const {
  const std::string path = PathOf(key);
  return absl::StrCat(source_, ": ", path.empty() ? "the content" : path);
}

std::string JsonReader::PathOf(absl::string_view key) const {
  return absl::StrCat(path_, path_.empty() || key.empty() ? "" : ".", key);
}

}  // namespace expertmesh
