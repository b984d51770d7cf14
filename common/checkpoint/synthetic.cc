#include "common/checkpoint/synthetic.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/families.h"
#include "common/checkpoint/safetensors_writer.h"
#include "common/checkpoint/synthetic_tensor.h"
#include "common/json/json_reader.h"
#include "common/json/json_text.h"
#include "common/tensor/aligned_buffer.h"

namespace expertmesh::checkpoint {
namespace {

constexpr uint64_t kChunkElements = 256 * 1024;

using Shard = std::vector<SyntheticTensor>;

// Makes tensors piece by piece, and tells how far it is.
class Generator {
 public:
  Generator(const SyntheticOptions& options, uint64_t total)
      : options_(options), total_(total), chunk_(kChunkElements * sizeof(float)) {}

  absl::Status Produce(const SyntheticTensor& tensor, const ByteSink& sink) {
    for (uint64_t begin = 0; begin < tensor.elements; begin += kChunkElements) {
      const uint64_t count = std::min(kChunkElements, tensor.elements - begin);
      FillSynthetic(tensor, options_.seed, begin, count, chunk_.data());
      const uint64_t bytes = count * BytesOf(tensor.spec.dtype);
      RETURN_IF_ERROR(sink(chunk_.data(), bytes));
      done_ += bytes;
      if (options_.progress) {
        options_.progress(done_, total_);
      }
    }
    return absl::OkStatus();
  }

 private:
  const SyntheticOptions& options_;
  const uint64_t total_;
  uint64_t done_ = 0;
  AlignedBuffer chunk_;
};

bool HoldsMxfp4(const Storage& storage) { return storage.experts.up.encoding == Encoding::kMxfp4; }

// The family's first storage that stores experts as `quantise` says; null when there is none.
const Storage* StorageFor(const Family& family, Quantisation quantise) {
  for (const Storage& storage : family.storages) {
    if (HoldsMxfp4(storage) == (quantise == Quantisation::kMxfp4)) {
      return &storage;
    }
  }
  return nullptr;
}

std::vector<Shard> PlanShards(const ModelLayout& layout, const SyntheticOptions& options) {
  std::vector<Shard> shards(1);
  uint64_t shard_bytes = 0;
  const Storage& storage = *StorageFor(*layout.family, options.quantise);
  ForEachTensor(layout, storage, [&](const TensorDeclaration& declaration) {
    for (SyntheticTensor& tensor : StoredTensors(declaration, options)) {
      if (!shards.back().empty() && shard_bytes + tensor.bytes > options.max_shard_bytes) {
        shards.emplace_back();
        shard_bytes = 0;
      }
      shard_bytes += tensor.bytes;
      shards.back().push_back(std::move(tensor));
    }
  });
  return shards;
}

std::string ShardName(size_t index, size_t count) {
  return count == 1 ? "model.safetensors"
                    : absl::StrFormat("model-%05d-of-%05d.safetensors", index + 1, count);
}

std::string IndexText(const std::vector<Shard>& shards, uint64_t total) {
  nlohmann::json map = nlohmann::json::object();
  for (size_t i = 0; i < shards.size(); ++i) {
    for (const SyntheticTensor& tensor : shards[i]) {
      map[tensor.spec.name] = ShardName(i, shards.size());
    }
  }
  return nlohmann::json{{"metadata", {{"total_size", total}}}, {"weight_map", map}}.dump(2);
}

absl::Status WriteFiles(const std::string& folder, const std::string& config,
                        const ModelLayout& layout, const SyntheticOptions& options) {
  const std::vector<Shard> shards = PlanShards(layout, options);
  uint64_t total = 0;
  for (const Shard& shard : shards) {
    for (const SyntheticTensor& tensor : shard) {
      total += tensor.bytes;
    }
  }
  Generator generator(options, total);
  for (size_t i = 0; i < shards.size(); ++i) {
    std::vector<TensorSpec> specs;
    for (const SyntheticTensor& tensor : shards[i]) {
      specs.push_back(tensor.spec);
    }
    // Not synced: the same seed makes it again.
    RETURN_IF_ERROR(WriteSafetensors(
        absl::StrCat(folder, "/", ShardName(i, shards.size())), specs,
        [&](size_t index, const ByteSink& sink) {
          return generator.Produce(shards[i][index], sink);
        },
        Durability::kRename));
  }
  if (shards.size() > 1) {
    RETURN_IF_ERROR(WriteFileAtomically(absl::StrCat(folder, "/model.safetensors.index.json"),
                                        IndexText(shards, total), Durability::kRename));
  }
  return WriteFileAtomically(absl::StrCat(folder, "/config.json"), config, Durability::kRename);
}

absl::Status CheckQuantisation(const Family& family, const SyntheticOptions& options) {
  const bool known =
      options.quantise == Quantisation::kNone ||
      (options.quantise == Quantisation::kFp8 ? family.fp8
                                              : StorageFor(family, options.quantise) != nullptr);
  if (!known) {
    return absl::InvalidArgumentError(
        absl::StrCat("quantise ", options.quantise == Quantisation::kFp8 ? "fp8" : "mxfp4",
                     " has no place in family ", family.name));
  }
  if (options.quantise == Quantisation::kMxfp4 &&
      (options.d_model % 32 != 0 || options.intermediate_size % 32 != 0)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "d_model = ", options.d_model, " and intermediate_size = ", options.intermediate_size,
        " must be multiples of 32, the block of mxfp4"));
  }
  return absl::OkStatus();
}

// quantization_config, as the released checkpoints have it.
nlohmann::ordered_json QuantisationConfig(Quantisation quantise) {
  if (quantise == Quantisation::kFp8) {
    return {{"quant_method", "fp8"},
            {"fmt", "e4m3"},
            {"activation_scheme", "dynamic"},
            {"weight_block_size", {128, 128}}};
  }
  return {
      {"quant_method", "mxfp4"},
      {"modules_to_not_convert",
       {"model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"}}};
}

absl::Status CheckOptions(const Family& family, const SyntheticOptions& options) {
  const struct {
    SyntheticOption option;
    bool set;
    absl::string_view name;
  } all[] = {
      {SyntheticOption::kTopK, options.top_k.has_value(), "top_k"},
      {SyntheticOption::kDenseLayers, options.dense_layers > 0, "dense_layers"},
      {SyntheticOption::kMoeEvery, options.moe_every != 1, "moe_every"},
      {SyntheticOption::kDenseWidth, options.dense_intermediate_size > 0,
       "dense_intermediate_size"},
      {SyntheticOption::kSharedExperts, options.shared_experts.has_value(), "shared_experts"},
      {SyntheticOption::kGroups, options.n_group != 1 || options.topk_group != 1, "n_group"},
  };
  for (const auto& [option, set, name] : all) {
    const auto& known = family.synthetic_options;
    if (set && std::find(known.begin(), known.end(), option) == known.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, " has no place in family ", family.name));
    }
  }
  RETURN_IF_ERROR(CheckQuantisation(family, options));
  if (options.moe_every == 0) {
    return absl::InvalidArgumentError("moe_every = 0 must be at least 1");
  }
  if (family.stacks.size() > options.num_layers) {
    return absl::InvalidArgumentError(absl::StrCat("num_layers = ", options.num_layers,
                                                   " must be at least ", family.stacks.size(),
                                                   ", one for each stack of ", family.name));
  }
  return absl::OkStatus();
}

std::string ConfigText(const Family& family, const SyntheticOptions& options) {
  const absl::string_view dtype = options.dtype == Dtype::kBF16  ? "bfloat16"
                                  : options.dtype == Dtype::kF16 ? "float16"
                                                                 : "float32";
  nlohmann::ordered_json config = {{"architectures", {std::string(family.architectures[0])}},
                                   {"model_type", std::string(family.model_types[0])},
                                   {"torch_dtype", std::string(dtype)}};
  config.update(family.synthetic_config(options));
  if (options.quantise != Quantisation::kNone) {
    config["quantization_config"] = QuantisationConfig(options.quantise);
  }
  return config.dump(2);
}

absl::Status SystemError(const std::string& path, const std::error_code& error) {
  return absl::InternalError(absl::StrCat(path, ": ", error.message()));
}

}  // namespace

absl::Status MakeSyntheticCheckpoint(const std::string& directory,
                                     const SyntheticOptions& options) {
  if (!IsActivationDtype(options.dtype)) {
    return absl::InvalidArgumentError(
        absl::StrCat("dtype ", NameOf(options.dtype), " must be F32, F16 or BF16"));
  }
  ASSIGN_OR_RETURN(const Family* family, FindFamily(options.family));
  RETURN_IF_ERROR(CheckOptions(*family, options));
  const std::string config = ConfigText(*family, options);
  ASSIGN_OR_RETURN(const JsonReader reader,
                   JsonReader::FromText(config, "sizes of the synthetic checkpoint"));
  ASSIGN_OR_RETURN(const ModelLayout layout, ReadModelLayout(reader));

  const std::string folder(absl::StripSuffix(directory, "/"));
  const std::string partial = folder + ".partial";
  std::error_code error;
  if (std::filesystem::exists(folder, error) && !std::filesystem::is_empty(folder, error)) {
    return absl::AlreadyExistsError(
        absl::StrCat(folder, ": is there and not empty; remove it or name another folder"));
  }
  std::filesystem::remove_all(partial, error);
  std::filesystem::create_directories(partial, error);
  if (error) {
    return SystemError(partial, error);
  }
  absl::Status status = WriteFiles(partial, config, layout, options);
  if (status.ok()) {
    std::filesystem::rename(partial, folder, error);
    if (error) {
      status = SystemError(folder, error);
    }
  }
  if (!status.ok()) {
    std::filesystem::remove_all(partial, error);
  }
  return status;
}

}  // namespace expertmesh::checkpoint
