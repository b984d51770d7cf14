// Small synthetic checkpoints for tests, and changes to what lies in them.
#ifndef EXPERTMESH_TESTS_UNIT_COMMON_CHECKPOINT_MADE_CHECKPOINT_H_
#define EXPERTMESH_TESTS_UNIT_COMMON_CHECKPOINT_MADE_CHECKPOINT_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "common/checkpoint/moe_checkpoint.h"
#include "common/checkpoint/safetensors.h"
#include "common/checkpoint/safetensors_writer.h"
#include "common/checkpoint/synthetic.h"
#include "common/tensor/dtype.h"
#include "gtest/gtest.h"

namespace expertmesh::checkpoint {

inline SyntheticOptions Small(const std::string& family) {
  SyntheticOptions options;
  options.family = family;
  options.d_model = 32;
  options.num_layers = 2;
  options.num_experts = 4;
  options.intermediate_size = 16;
  options.vocab_size = 64;
  return options;
}

inline std::shared_ptr<const MoeCheckpoint> Make(const std::string& directory,
                                                 const SyntheticOptions& options) {
  const absl::Status made = MakeSyntheticCheckpoint(directory, options);
  EXPECT_TRUE(made.ok()) << made;
  auto checkpoint = MoeCheckpoint::Open(directory);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  return checkpoint.ok() ? *std::move(checkpoint) : nullptr;
}

struct OwnedTensor {
  Dtype dtype;
  std::vector<uint64_t> shape;
  std::string bytes;

  uint64_t elements() const {
    return std::accumulate(shape.begin(), shape.end(), uint64_t{1}, std::multiplies<>());
  }
  // Values of an activation type.
  std::vector<float> Floats() const {
    std::vector<float> values(elements());
    ConvertElements(dtype, bytes.data(), Dtype::kF32, values.data(), values.size());
    return values;
  }
};

using OwnedTensors = std::map<std::string, OwnedTensor>;

// The tensors of a checkpoint.
inline OwnedTensors Tensors(const std::string& directory) {
  OwnedTensors tensors;
  const auto reader = SafetensorsReader::OpenFolder(directory);
  EXPECT_TRUE(reader.ok()) << reader.status();
  for (const auto& [name, view] : (*reader)->tensors()) {
    tensors[name] = {view.dtype, view.shape,
                     std::string(reinterpret_cast<const char*>(view.data), view.bytes)};
  }
  return tensors;
}

// Rewrites the single-file checkpoint in `directory` after `change`.
inline void Rewrite(const std::string& directory,
                    const std::function<void(OwnedTensors*)>& change) {
  OwnedTensors tensors = Tensors(directory);
  change(&tensors);
  std::vector<TensorToWrite> list;
  for (const auto& [name, tensor] : tensors) {
    list.push_back({name, tensor.dtype, tensor.shape,
                    absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(tensor.bytes.data()),
                                        tensor.bytes.size())});
  }
  ASSERT_TRUE(WriteSafetensors(directory + "/model.safetensors", list).ok());
}

}  // namespace expertmesh::checkpoint

#endif  // EXPERTMESH_TESTS_UNIT_COMMON_CHECKPOINT_MADE_CHECKPOINT_H_
