#include "common/checkpoint/synthetic.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/config_reader.h"
#include "common/checkpoint/families.h"
#include "common/checkpoint/json_text.h"
#include "common/checkpoint/random_tensor.h"
#include "common/checkpoint/safetensors_header.h"
#include "common/checkpoint/safetensors_writer.h"
#include "common/tensor/aligned_buffer.h"

namespace expertmesh {
namespace {

constexpr uint64_t kChunkElements = 256 * 1024;
// Large enough to matter beside sigmoid scores, small enough that the corrected scores of good
// experts stay positive: some readers mask the other groups with 0 instead of minus infinity.
constexpr float kSelectBiasDeviation = 0.05f;

struct SyntheticTensor {
  TensorSpec spec;
  TensorKind kind;
  uint64_t elements = 0;
  uint64_t bytes = 0;
};

using Shard = std::vector<SyntheticTensor>;

// Standard deviation of a tensor's values; 0 when they are all the same.
float DeviationOf(const SyntheticTensor& tensor) {
  switch (tensor.kind) {
    case TensorKind::kLinear:
      return static_cast<float>(1.0 / std::sqrt(static_cast<double>(tensor.spec.shape.back())));
    case TensorKind::kEmbedding:
      return 1.0f;
    case TensorKind::kSelectBias:
      return kSelectBiasDeviation;
    case TensorKind::kNorm:
    case TensorKind::kBias:
      return 0.0f;
  }
  return 0.0f;
}

void FillConstant(float value, DType dtype, uint64_t count, void* target) {
  const std::vector<float> values(count, value);
  ConvertElements(DType::kF32, values.data(), dtype, target, count);
}

// Makes tensors piece by piece, and tells how far it is.
class Generator {
 public:
  Generator(const SyntheticOptions& options, uint64_t total)
      : options_(options), total_(total), chunk_(kChunkElements * sizeof(float)) {}

  absl::Status Produce(const SyntheticTensor& tensor, const ByteSink& sink) {
    const NormalSequence sequence(options_.seed, tensor.spec.name);
    const float deviation = DeviationOf(tensor);
    const DType dtype = tensor.spec.dtype;
    for (uint64_t begin = 0; begin < tensor.elements; begin += kChunkElements) {
      const uint64_t count = std::min(kChunkElements, tensor.elements - begin);
      if (deviation > 0.0f) {
        sequence.Fill(begin, count, deviation, dtype, chunk_.data());
      } else {
        FillConstant(tensor.kind == TensorKind::kNorm ? 1.0f : 0.0f, dtype, count, chunk_.data());
      }
      const uint64_t bytes = count * BytesOf(dtype);
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

std::vector<Shard> PlanShards(const ModelLayout& layout, const SyntheticOptions& options) {
  std::vector<Shard> shards(1);
  uint64_t shard_bytes = 0;
  ForEachTensor(layout, [&](const TensorDeclaration& declaration) {
    SyntheticTensor tensor;
    tensor.kind = declaration.kind;
    tensor.spec.name = declaration.name;
    tensor.spec.shape = declaration.shape;
    tensor.spec.dtype = declaration.kind == TensorKind::kSelectBias ? DType::kF32 : options.dtype;
    tensor.bytes = TensorBytes(tensor.spec.dtype, tensor.spec.shape).value_or(0);
    tensor.elements = tensor.bytes / BytesOf(tensor.spec.dtype);
    if (!shards.back().empty() && shard_bytes + tensor.bytes > options.max_shard_bytes) {
      shards.emplace_back();
      shard_bytes = 0;
    }
    shard_bytes += tensor.bytes;
    shards.back().push_back(std::move(tensor));
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

absl::Status SystemError(const std::string& path, const std::error_code& error) {
  return absl::InternalError(absl::StrCat(path, ": ", error.message()));
}

}  // namespace

absl::Status MakeSyntheticCheckpoint(const std::string& directory,
                                     const SyntheticOptions& options) {
  if (!IsActivationDType(options.dtype)) {
    return absl::InvalidArgumentError(
        absl::StrCat("dtype ", NameOf(options.dtype), " must be F32, F16 or BF16"));
  }
  ASSIGN_OR_RETURN(const Family* family, FindFamily(options.family));
  ASSIGN_OR_RETURN(const std::string config, family->synthetic_config(options));
  ASSIGN_OR_RETURN(const ConfigReader reader,
                   ConfigReader::FromText(config, "sizes of the synthetic checkpoint"));
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

}  // namespace expertmesh
