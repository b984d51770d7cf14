// model.safetensors.index.json: which file of a checkpoint should hold which tensor.
#ifndef EXPERTMESH_COMMON_CHECKPOINT_WEIGHT_INDEX_H_
#define EXPERTMESH_COMMON_CHECKPOINT_WEIGHT_INDEX_H_

#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace expertmesh::checkpoint {

inline constexpr absl::string_view kIndexFile = "model.safetensors.index.json";

// Tensor to the name of its file, which lies in the folder of the index.
using WeightIndex = absl::btree_map<std::string, std::string>;

// INVALID_ARGUMENT when the index is malformed, names no tensor, or names a file elsewhere.
absl::StatusOr<WeightIndex> ReadWeightIndex(const std::string& path);

// The files it names, ascending.
std::vector<std::string> FilesOf(const WeightIndex& index);

// Things of one kind that are worth one warning: the first by name, the others counted.
class Findings {
 public:
  void Add(const std::string& sentence) {
    if (count_++ == 0) {
      first_ = sentence;
    }
  }
  // Appends "SOURCE SENTENCE", or nothing.
  void Report(absl::string_view source, std::vector<std::string>* warnings) const;

 private:
  size_t count_ = 0;
  std::string first_;
};

}  // namespace expertmesh::checkpoint

#endif  // EXPERTMESH_COMMON_CHECKPOINT_WEIGHT_INDEX_H_
