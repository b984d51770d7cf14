#include "common/checkpoint/safetensors_header.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "common/json/json_text.h"
#include "nlohmann/json.hpp"

namespace expertmesh::checkpoint {
namespace {

using nlohmann::json;

constexpr size_t kLengthBytes = 8;
// Dimensions that an error shows.
constexpr size_t kMostShown = 16;

constexpr Dtype kAllTypes[] = {
    Dtype::kBool,   Dtype::kU8,     Dtype::kI8,  Dtype::kU16,    Dtype::kI16,
    Dtype::kU32,    Dtype::kI32,    Dtype::kU64, Dtype::kI64,    Dtype::kF8E4M3,
    Dtype::kF8E5M2, Dtype::kF8E8M0, Dtype::kF4,  Dtype::kF6E2M3, Dtype::kF6E3M2,
    Dtype::kF16,    Dtype::kBF16,   Dtype::kF32, Dtype::kF64,    Dtype::kC64,
};

std::string KnownTypes() {
  return absl::StrJoin(kAllTypes, ", ",
                       [](std::string* out, Dtype dtype) { absl::StrAppend(out, NameOf(dtype)); });
}

// Says where an error is: "FILE: tensor 'NAME'".
class Place {
 public:
  Place(absl::string_view source, absl::string_view tensor) : source_(source), tensor_(tensor) {}

  absl::Status DataLoss(absl::string_view message) const {
    return absl::DataLossError(absl::StrCat(source_, ": tensor ", Quoted(tensor_), ": ", message));
  }
  absl::Status Invalid(absl::string_view message) const {
    return absl::InvalidArgumentError(
        absl::StrCat(source_, ": tensor ", Quoted(tensor_), ": ", message));
  }

 private:
  absl::string_view source_;
  absl::string_view tensor_;
};

absl::StatusOr<std::vector<uint64_t>> UnsignedArray(const json& value, absl::string_view key,
                                                    const Place& place) {
  const auto found = value.find(key);
  if (found == value.end() || !found->is_array()) {
    return place.DataLoss(absl::StrCat(key, " must be an array of numbers"));
  }
  std::vector<uint64_t> numbers;
  for (const json& number : *found) {
    if (!number.is_number_unsigned()) {
      return place.DataLoss(absl::StrCat(key, " must hold whole numbers from 0, not ",
                                         Quoted(number.dump(-1, ' ', true))));
    }
    numbers.push_back(number.get<uint64_t>());
  }
  return numbers;
}

// `data_begin`: where data starts in the file.
absl::StatusOr<SafetensorsEntry> ParseEntry(const json& value, uint64_t data_begin,
                                            uint64_t data_size, const Place& place) {
  if (!value.is_object()) {
    return place.DataLoss("its header entry must be an object");
  }
  SafetensorsEntry entry;
  const auto type = value.find("dtype");
  if (type == value.end() || !type->is_string()) {
    return place.DataLoss("dtype must be a string");
  }
  const std::string& type_name = type->get_ref<const std::string&>();
  const std::optional<Dtype> dtype = DtypeFromSafetensors(type_name);
  if (!dtype.has_value()) {
    return place.Invalid(
        absl::StrCat("unknown dtype ", Quoted(type_name), "; known: ", KnownTypes()));
  }
  entry.dtype = *dtype;
  ASSIGN_OR_RETURN(entry.shape, UnsignedArray(value, "shape", place));
  ASSIGN_OR_RETURN(const std::vector<uint64_t> offsets,
                   UnsignedArray(value, "data_offsets", place));
  if (offsets.size() != 2) {
    return place.DataLoss(
        absl::StrCat("data_offsets must be [begin, end], but holds ", offsets.size(), " numbers"));
  }
  const uint64_t begin = offsets[0];
  const uint64_t end = offsets[1];
  if (begin > end) {
    return place.DataLoss(absl::StrCat("data_offsets begin at ", begin, ", after their end ", end));
  }
  if (end > data_size) {
    return place.DataLoss(absl::StrCat("data_offsets end at ", end, ", but the file has only ",
                                       data_size, " bytes of data; it may be truncated"));
  }
  const std::optional<uint64_t> expected = TensorBytes(entry.dtype, entry.shape);
  if (!expected.has_value()) {
    return place.DataLoss(absl::StrCat("shape ", ShapeString(entry.shape), " of ", type_name,
                                       " overflows or is no whole number of bytes"));
  }
  if (*expected != end - begin) {
    return place.DataLoss(absl::StrCat("shape ", ShapeString(entry.shape), " of ", type_name,
                                       " takes ", *expected, " bytes, but data_offsets give ",
                                       end - begin));
  }
  entry.begin = data_begin + begin;
  entry.end = data_begin + end;
  return entry;
}

// Every byte of data belongs to exactly one tensor.
absl::Status CheckCoverage(const SafetensorsHeader& header, uint64_t data_begin, uint64_t file_size,
                           absl::string_view source) {
  std::vector<std::pair<const SafetensorsEntry*, const std::string*>> order;
  order.reserve(header.tensors.size());
  for (const auto& [name, entry] : header.tensors) {
    order.emplace_back(&entry, &name);
  }
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::tie(a.first->begin, a.first->end) < std::tie(b.first->begin, b.first->end);
  });
  uint64_t covered = data_begin;
  const std::string* previous = nullptr;
  for (const auto& [entry, name] : order) {
    if (entry->begin < covered) {
      return Place(source, *name).DataLoss(absl::StrCat("overlaps tensor ", Quoted(*previous)));
    }
    if (entry->begin > covered) {
      return Place(source, *name)
          .DataLoss(absl::StrCat("a hole of ", entry->begin - covered, " bytes lies before it"));
    }
    covered = entry->end;
    previous = name;
  }
  if (covered != file_size) {
    return absl::DataLossError(absl::StrCat(source, ": ", file_size - covered,
                                            " bytes after the last tensor belong to none"));
  }
  return absl::OkStatus();
}

absl::Status ReadMetadata(const json& value, absl::string_view source, SafetensorsHeader* header) {
  if (!value.is_object()) {
    return absl::DataLossError(absl::StrCat(source, ": __metadata__ must be an object"));
  }
  for (const auto& item : value.items()) {
    if (!item.value().is_string()) {
      return absl::DataLossError(
          absl::StrCat(source, ": __metadata__ key ", Quoted(item.key()), " must hold a string"));
    }
    header->metadata.emplace(item.key(), item.value().get_ref<const std::string&>());
  }
  return absl::OkStatus();
}

// The JSON part of the file.
absl::StatusOr<absl::string_view> HeaderText(absl::string_view file, absl::string_view source) {
  if (file.size() < kLengthBytes) {
    return absl::DataLossError(absl::StrCat(source, ": ", file.size(),
                                            " bytes are too few for a safetensors file; it is "
                                            "truncated or something else"));
  }
  uint64_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) {
    length |= static_cast<uint64_t>(static_cast<uint8_t>(file[i])) << (8 * i);
  }
  if (length > kMaxSafetensorsHeaderBytes) {
    return absl::DataLossError(absl::StrCat(source, ": claims a header of ", length,
                                            " bytes; at most ", kMaxSafetensorsHeaderBytes,
                                            " are accepted. Is it a safetensors file?"));
  }
  if (length > file.size() - kLengthBytes) {
    return absl::DataLossError(absl::StrCat(source, ": claims a header of ", length,
                                            " bytes, but only ", file.size() - kLengthBytes,
                                            " follow; it is truncated"));
  }
  return file.substr(kLengthBytes, length);
}

}  // namespace

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view file,
                                                         absl::string_view source) {
  ASSIGN_OR_RETURN(const absl::string_view text, HeaderText(file, source));
  absl::StatusOr<json> parsed = ParseJson(text, absl::StrCat(source, " (header)"));
  if (!parsed.ok()) {
    return absl::DataLossError(parsed.status().message());
  }
  if (!parsed->is_object()) {
    return absl::DataLossError(absl::StrCat(source, ": the header must be a JSON object"));
  }
  const uint64_t data_begin = kLengthBytes + text.size();
  SafetensorsHeader header;
  for (const auto& item : parsed->items()) {
    if (item.key() == "__metadata__") {
      RETURN_IF_ERROR(ReadMetadata(item.value(), source, &header));
      continue;
    }
    ASSIGN_OR_RETURN(
        SafetensorsEntry entry,
        ParseEntry(item.value(), data_begin, file.size() - data_begin, Place(source, item.key())));
    header.tensors.emplace(item.key(), std::move(entry));
  }
  RETURN_IF_ERROR(CheckCoverage(header, data_begin, file.size(), source));
  return header;
}

std::optional<Dtype> DtypeFromSafetensors(absl::string_view name) {
  for (const Dtype dtype : kAllTypes) {
    if (NameOf(dtype) == name) {
      return dtype;
    }
  }
  return std::nullopt;
}

std::optional<uint64_t> TensorBytes(Dtype dtype, absl::Span<const uint64_t> shape) {
  uint64_t bits = BitsOf(dtype);
  // A zero anywhere makes the product 0, but the other extents must still be sane.
  bool empty = false;
  for (const uint64_t extent : shape) {
    if (extent == 0) {
      empty = true;
    } else if (__builtin_mul_overflow(bits, extent, &bits)) {
      return std::nullopt;
    }
  }
  if (empty) {
    return 0;
  }
  if (bits % 8 != 0) {
    return std::nullopt;
  }
  return bits / 8;
}

std::string ShapeString(absl::Span<const uint64_t> shape) {
  const absl::Span<const uint64_t> shown = shape.first(std::min(shape.size(), kMostShown));
  return shown.size() == shape.size() ? absl::StrCat("[", absl::StrJoin(shape, ", "), "]")
                                      : absl::StrCat("[", absl::StrJoin(shown, ", "),
                                                     ", ...: ", shape.size(), " dimensions]");
}

}  // namespace expertmesh::checkpoint
