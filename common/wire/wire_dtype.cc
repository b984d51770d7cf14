#include "common/wire/wire_dtype.h"

#include <algorithm>
#include <iterator>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace expertmesh {
namespace {

struct WireDtype {
  Dtype dtype;
  v1::Dtype number;
  absl::string_view name;
};

constexpr WireDtype kTypes[] = {
    {Dtype::kF32, v1::DTYPE_F32, "f32"},
    {Dtype::kBF16, v1::DTYPE_BF16, "bf16"},
    {Dtype::kF16, v1::DTYPE_F16, "f16"},
    {Dtype::kI8Block128, v1::DTYPE_INT8_BLOCK128, "int8"},
};

const WireDtype& Of(Dtype dtype) {
  const WireDtype* const found = std::find_if(
      std::begin(kTypes), std::end(kTypes), [&](const auto& type) { return type.dtype == dtype; });
  EXPERTMESH_CHECK(found != std::end(kTypes));
  return *found;
}

// What `text_of` says of each type: "a, b or c".
template <typename TextOf>
std::string Alternatives(TextOf text_of) {
  std::string text;
  for (size_t i = 0; i < std::size(kTypes); ++i) {
    const char* const separator = i == 0 ? "" : i + 1 == std::size(kTypes) ? " or " : ", ";
    absl::StrAppend(&text, separator, text_of(kTypes[i]));
  }
  return text;
}

}  // namespace

absl::StatusOr<Dtype> FromWire(v1::Dtype dtype, absl::string_view field) {
  if (const std::optional<Dtype> known = FindWireDtype(dtype)) {
    return *known;
  }
  const std::string name =
      v1::Dtype_IsValid(dtype) ? v1::Dtype_Name(dtype) : absl::StrCat(static_cast<int>(dtype));
  return absl::InvalidArgumentError(absl::StrCat(
      field, " is ", name, "; send ",
      Alternatives([](const WireDtype& type) { return v1::Dtype_Name(type.number); })));
}

v1::Dtype ToWire(Dtype dtype) { return Of(dtype).number; }

std::optional<Dtype> FindWireDtype(v1::Dtype dtype) {
  for (const WireDtype& type : kTypes) {
    if (type.number == dtype) {
      return type.dtype;
    }
  }
  return std::nullopt;
}

std::optional<Dtype> FindWireDtype(absl::string_view name) {
  for (const WireDtype& type : kTypes) {
    if (type.name == name) {
      return type.dtype;
    }
  }
  return std::nullopt;
}

absl::string_view WireName(Dtype dtype) { return Of(dtype).name; }

std::string WireNames() {
  return Alternatives([](const WireDtype& type) { return type.name; });
}

}  // namespace expertmesh
