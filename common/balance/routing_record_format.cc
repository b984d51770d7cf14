#include "common/balance/routing_record_format.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

#define XXH_INLINE_ALL
#include "xxhash.h"

static_assert(std::endian::native == std::endian::little, "recordings are little endian");

namespace expertmesh::balance {
namespace {

constexpr size_t kMaxLayers = 4096;
constexpr uint32_t kMaxExperts = 65535;
// In all layers together: what reads a recording keeps figures for each.
constexpr uint64_t kMaxExpertsInAll = uint64_t{1} << 20;
constexpr size_t kMaxNameBytes = 1024;
// What a body has before the ids.
constexpr uint64_t kBlockFieldsBytes = 36;

template <typename T>
void Append(T value, std::string* bytes) {
  bytes->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void AppendText(absl::string_view text, std::string* bytes) {
  Append(static_cast<uint32_t>(text.size()), bytes);
  absl::StrAppend(bytes, text);
}

uint64_t Checksum(absl::string_view bytes, uint64_t seed) {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

uint32_t PrefixCheck(uint32_t body_bytes, uint64_t offset) {
  std::string bytes;
  Append(body_bytes, &bytes);
  return static_cast<uint32_t>(Checksum(bytes, offset));
}

// Takes values off the front; once something is missing, everything is.
class Cursor {
 public:
  explicit Cursor(absl::string_view bytes) : bytes_(bytes) {}

  template <typename T>
  T Take() {
    T value{};
    if (const absl::string_view taken = TakeBytes(sizeof(T)); taken.size() == sizeof(T)) {
      std::memcpy(&value, taken.data(), sizeof(T));
    }
    return value;
  }

  absl::string_view TakeBytes(size_t count) {
    if (count > bytes_.size()) {
      ok_ = false;
      bytes_ = {};
      return {};
    }
    const absl::string_view taken = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return taken;
  }

  std::optional<std::string> TakeText() {
    const uint32_t size = Take<uint32_t>();
    if (size > kMaxNameBytes) {
      return std::nullopt;
    }
    return std::string(TakeBytes(size));
  }

  bool ok() const { return ok_; }
  size_t left() const { return bytes_.size(); }

 private:
  absl::string_view bytes_;
  bool ok_ = true;
};

template <typename T>
void AppendExperts(const RecordedBatch& batch, uint32_t num_experts, std::string* bytes) {
  for (const uint32_t expert : batch.experts) {
    Append(static_cast<T>(expert == kNoExpert ? num_experts : expert), bytes);
  }
}

// False when one of them does not exist.
template <typename T>
bool TakeExperts(absl::string_view bytes, uint32_t num_experts, std::vector<uint32_t>* experts) {
  for (size_t i = 0; i < experts->size(); ++i) {
    T id;
    std::memcpy(&id, bytes.data() + i * sizeof(T), sizeof(T));
    if (id > num_experts) {
      return false;
    }
    (*experts)[i] = id == num_experts ? kNoExpert : id;
  }
  return true;
}

absl::Status CheckLayer(const RecordedLayer& layer) {
  if (layer.num_experts == 0 || layer.num_experts > kMaxExperts) {
    return absl::InvalidArgumentError(absl::StrCat("layer ", layer.layer, ": num_experts is ",
                                                   layer.num_experts, "; use 1 to ", kMaxExperts));
  }
  if (layer.top_k == 0 || layer.top_k > layer.num_experts) {
    return absl::InvalidArgumentError(absl::StrCat("layer ", layer.layer, ": top_k is ",
                                                   layer.top_k, "; use 1 to num_experts, which is ",
                                                   layer.num_experts));
  }
  return absl::OkStatus();
}

}  // namespace

RecordedModel RecordedModelOf(const ModelDescription& model, const ModelIdentity& identity) {
  RecordedModel recorded = {.identity = identity, .layers = {}};
  for (const MoeLayerDescription& layer : model.layers) {
    if (layer.routing.choice != Choice::kExpertChoice) {
      recorded.layers.push_back({.layer = layer.layer,
                                 .num_experts = layer.routing.num_experts,
                                 .top_k = layer.routing.top_k});
    }
  }
  return recorded;
}

absl::Status ValidateRecordedModel(const RecordedModel& model) {
  if (model.layers.empty() || model.layers.size() > kMaxLayers) {
    return absl::InvalidArgumentError(absl::StrCat("the model has ", model.layers.size(),
                                                   " layers to record; use 1 to ", kMaxLayers));
  }
  uint64_t experts = 0;
  for (size_t i = 0; i < model.layers.size(); ++i) {
    RETURN_IF_ERROR(CheckLayer(model.layers[i]));
    experts += model.layers[i].num_experts;
    if (i > 0 && model.layers[i].layer <= model.layers[i - 1].layer) {
      return absl::InvalidArgumentError(absl::StrCat("layer ", model.layers[i].layer,
                                                     " follows layer ", model.layers[i - 1].layer,
                                                     "; list layers ascending, each once"));
    }
  }
  if (experts > kMaxExpertsInAll) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the model has ", experts, " experts in all layers; use at most ", kMaxExpertsInAll));
  }
  for (const std::string* name : {&model.identity.fingerprint, &model.identity.outline}) {
    if (name->size() > kMaxNameBytes) {
      return absl::InvalidArgumentError(absl::StrCat("fingerprint or outline has ", name->size(),
                                                     " bytes; use at most ", kMaxNameBytes));
    }
  }
  return absl::OkStatus();
}

const RecordedLayer* FindRecordedLayer(const RecordedModel& model, uint32_t layer) {
  const auto found = std::lower_bound(
      model.layers.begin(), model.layers.end(), layer,
      [](const RecordedLayer& candidate, uint32_t wanted) { return candidate.layer < wanted; });
  return found != model.layers.end() && found->layer == layer ? &*found : nullptr;
}

std::string EncodeRecordHeader(const RecordedModel& model, uint64_t* seed) {
  std::string rest;
  AppendText(model.identity.fingerprint, &rest);
  AppendText(model.identity.outline, &rest);
  Append(static_cast<uint32_t>(model.layers.size()), &rest);
  for (const RecordedLayer& layer : model.layers) {
    Append(layer.layer, &rest);
    Append(layer.num_experts, &rest);
    Append(layer.top_k, &rest);
  }
  std::string header(kRecordMagic);
  Append(kRecordVersion, &header);
  Append(static_cast<uint32_t>(rest.size() + sizeof(uint64_t)), &header);
  header += rest;
  *seed = Checksum(header, 0);
  Append(*seed, &header);
  return header;
}

absl::StatusOr<uint32_t> DecodeRecordPrefix(absl::string_view prefix) {
  if (prefix.substr(0, kRecordMagic.size()) != kRecordMagic) {
    return absl::InvalidArgumentError(
        absl::StrCat("is no recording of routing: it does not begin with ", kRecordMagic,
                     "; name a file that a router recorded"));
  }
  Cursor cursor(prefix.substr(kRecordMagic.size()));
  const uint32_t version = cursor.Take<uint32_t>();
  const uint32_t size = cursor.Take<uint32_t>();
  if (version != kRecordVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("is a recording of version ", version, "; this program reads version ",
                     kRecordVersion, ": use the release that wrote it"));
  }
  if (size > kMaxRecordHeaderBytes || size < sizeof(uint64_t)) {
    return absl::DataLossError(absl::StrCat("has a header of ", size, " bytes, more than ",
                                            kMaxRecordHeaderBytes,
                                            " or too few: it is damaged; record again"));
  }
  return size;
}

absl::StatusOr<RecordedModel> DecodeRecordHeader(absl::string_view header, uint64_t* seed) {
  const absl::Status damaged = absl::DataLossError("has a damaged header; record again");
  if (header.size() < kRecordPrefixBytes + sizeof(uint64_t)) {
    return damaged;
  }
  Cursor checksum(header.substr(header.size() - sizeof(uint64_t)));
  header.remove_suffix(sizeof(uint64_t));
  *seed = checksum.Take<uint64_t>();
  if (Checksum(header, 0) != *seed) {
    return damaged;
  }
  Cursor cursor(header.substr(kRecordPrefixBytes));
  const std::optional<std::string> fingerprint = cursor.TakeText();
  const std::optional<std::string> outline = cursor.TakeText();
  const uint32_t layers = cursor.Take<uint32_t>();
  if (!fingerprint || !outline || !cursor.ok() || layers > kMaxLayers ||
      cursor.left() != size_t{layers} * sizeof(RecordedLayer)) {
    return damaged;
  }
  RecordedModel model = {.identity = {.fingerprint = *fingerprint, .outline = *outline},
                         .layers = std::vector<RecordedLayer>(layers)};
  for (RecordedLayer& layer : model.layers) {
    layer.layer = cursor.Take<uint32_t>();
    layer.num_experts = cursor.Take<uint32_t>();
    layer.top_k = cursor.Take<uint32_t>();
  }
  if (const absl::Status valid = ValidateRecordedModel(model); !valid.ok()) {
    return absl::DataLossError(
        absl::StrCat("has a header that says what cannot be: ", valid.message(), "; record again"));
  }
  return model;
}

void EncodeBlock(const RecordedBatch& batch, const RecordedLayer& layer, uint64_t offset,
                 uint64_t seed, std::string* block) {
  bool narrow = layer.num_experts <= 256;
  if (layer.num_experts == 256) {
    // Its 256th number is an expert, and none is left for a slot without one.
    narrow =
        std::find(batch.experts.begin(), batch.experts.end(), kNoExpert) == batch.experts.end();
  }
  const uint32_t id_bytes = narrow ? 1 : 2;
  const auto body_bytes =
      static_cast<uint32_t>(kBlockFieldsBytes + batch.experts.size() * id_bytes);
  block->clear();
  Append(body_bytes, block);
  Append(PrefixCheck(body_bytes, offset), block);
  Append(batch.time_us, block);
  Append(batch.epoch, block);
  Append(batch.layer, block);
  Append(batch.tokens, block);
  Append(batch.batch_us, block);
  Append(batch.node_us, block);
  Append(id_bytes, block);
  if (narrow) {
    AppendExperts<uint8_t>(batch, layer.num_experts, block);
  } else {
    AppendExperts<uint16_t>(batch, layer.num_experts, block);
  }
  Append(Checksum(absl::string_view(*block).substr(kBlockPrefixBytes), seed), block);
}

absl::StatusOr<uint32_t> DecodeBlockPrefix(absl::string_view prefix, uint64_t offset) {
  Cursor cursor(prefix);
  const uint32_t body_bytes = cursor.Take<uint32_t>();
  const uint32_t check = cursor.Take<uint32_t>();
  if (!cursor.ok() || check != PrefixCheck(body_bytes, offset) || body_bytes < kBlockFieldsBytes ||
      body_bytes > kMaxBlockBytes) {
    return absl::DataLossError("does not say its size");
  }
  return body_bytes;
}

absl::Status DecodeBlock(absl::string_view block, const RecordedModel& model, uint64_t seed,
                         RecordedBatch* batch) {
  const absl::string_view body = block.substr(0, block.size() - kBlockChecksumBytes);
  Cursor checksum(block.substr(body.size()));
  if (Checksum(body, seed) != checksum.Take<uint64_t>()) {
    return absl::DataLossError("is not what was written");
  }
  Cursor cursor(body);
  batch->time_us = cursor.Take<uint64_t>();
  batch->epoch = cursor.Take<uint64_t>();
  batch->layer = cursor.Take<uint32_t>();
  batch->tokens = cursor.Take<uint32_t>();
  batch->batch_us = cursor.Take<uint32_t>();
  batch->node_us = cursor.Take<uint32_t>();
  const uint32_t id_bytes = cursor.Take<uint32_t>();
  const RecordedLayer* layer = FindRecordedLayer(model, batch->layer);
  const uint64_t slots = layer == nullptr ? 0 : uint64_t{batch->tokens} * layer->top_k;
  if (layer == nullptr || (id_bytes != 1 && id_bytes != 2) || cursor.left() != slots * id_bytes) {
    return absl::DataLossError(absl::StrCat("is no batch of this model (layer ", batch->layer, ", ",
                                            batch->tokens, " tokens)"));
  }
  batch->experts.resize(slots);
  const absl::string_view ids = cursor.TakeBytes(cursor.left());
  if (id_bytes == 1 ? !TakeExperts<uint8_t>(ids, layer->num_experts, &batch->experts)
                    : !TakeExperts<uint16_t>(ids, layer->num_experts, &batch->experts)) {
    return absl::DataLossError("names an expert that its layer does not have");
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::balance
