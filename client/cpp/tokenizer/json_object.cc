#include "client/cpp/tokenizer/json_object.h"

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "client/cpp/tokenizer/utf8.h"
#include "common/base/status_macros.h"

namespace expertmesh::tokenizer {
namespace {

using nlohmann::json;

// A value as an error message shows it.
std::string Shown(const json& value) {
  constexpr size_t kMaxLength = 200;
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true);
  if (text.size() > kMaxLength) {
    text.resize(kMaxLength);
    text += "...";
  }
  return text;
}

}  // namespace

absl::StatusOr<JsonObject> JsonObject::Of(const json& value, absl::string_view source,
                                          std::string path) {
  JsonObject object(value, source, std::move(path));
  if (!value.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(object.Place(), " must be an object, not ", Shown(value)));
  }
  return object;
}

std::string JsonObject::Place(absl::string_view key) const {
  const bool dot = !path_.empty() && !key.empty();
  return absl::StrCat(source_, ": ", path_, dot ? "." : "",
                      path_.empty() && key.empty() ? "the content" : key);
}

const json* JsonObject::Find(absl::string_view key) {
  known_.emplace(key);
  const auto found = value_->find(key);
  return found == value_->end() || found->is_null() ? nullptr : &*found;
}

absl::StatusOr<bool> JsonObject::Bool(absl::string_view key) {
  const json* value = Find(key);
  if (value == nullptr || !value->is_boolean()) {
    return Refuse(key, "true and false");
  }
  return value->get<bool>();
}

absl::StatusOr<bool> JsonObject::Bool(absl::string_view key, bool fallback) {
  if (!Has(key)) {
    return fallback;
  }
  return Bool(key);
}

absl::StatusOr<std::string> JsonObject::String(absl::string_view key) {
  const json* value = Find(key);
  if (value == nullptr || !value->is_string()) {
    return Refuse(key, "a string");
  }
  return value->get<std::string>();
}

absl::StatusOr<std::string> JsonObject::Character(absl::string_view key) {
  ASSIGN_OR_RETURN(std::string text, String(key));
  if (text.empty() || FirstCharacter(text).size() != text.size()) {
    return Refuse(key, "a string of one character");
  }
  return text;
}

absl::StatusOr<uint32_t> JsonObject::Number(absl::string_view key, uint32_t max) {
  const json* value = Find(key);
  if (value == nullptr || !value->is_number_unsigned() || value->get<uint64_t>() > max) {
    return Refuse(key, absl::StrCat("a whole number from 0 to ", max));
  }
  return value->get<uint32_t>();
}

absl::StatusOr<JsonObject> JsonObject::Object(absl::string_view key) {
  const json* value = Find(key);
  if (value == nullptr) {
    return Refuse(key, "an object");
  }
  return Of(*value, source_, absl::StrCat(path_, path_.empty() ? "" : ".", key));
}

absl::StatusOr<JsonObject> JsonObject::Object(absl::string_view key, size_t index) {
  ASSIGN_OR_RETURN(const json* const array, Array(key));
  return Of(array->at(index), source_,
            absl::StrCat(path_, path_.empty() ? "" : ".", key, "[", index, "]"));
}

absl::StatusOr<const json*> JsonObject::Array(absl::string_view key) {
  const json* value = Find(key);
  if (value == nullptr || !value->is_array()) {
    return Refuse(key, "an array");
  }
  return value;
}

absl::Status JsonObject::Refuse(absl::string_view key, absl::string_view supported) const {
  const auto found = value_->find(key);
  if (found == value_->end()) {
    return absl::InvalidArgumentError(
        absl::StrCat(Place(key), " is missing; supported: ", supported));
  }
  return absl::InvalidArgumentError(
      absl::StrCat(Place(key), " is ", Shown(*found), "; supported: ", supported));
}

absl::Status JsonObject::Done() const {
  for (const auto& item : value_->items()) {
    if (!known_.contains(item.key())) {
      return absl::InvalidArgumentError(absl::StrCat(source_, ": ", path_, path_.empty() ? "" : ".",
                                                     absl::CHexEscape(item.key().substr(0, 200)),
                                                     " is ", Shown(item.value()),
                                                     ", and what that asks for is unknown here"));
    }
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::tokenizer
