// Tensors in safetensors files: one file, or the files of a checkpoint folder.
#ifndef EXPERTMESH_COMMON_CHECKPOINT_SAFETENSORS_H_
#define EXPERTMESH_COMMON_CHECKPOINT_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/checkpoint/mapped_file.h"
#include "common/checkpoint/safetensors_header.h"
#include "common/tensor/dtype.h"

namespace expertmesh::checkpoint {

// One tensor, row-major, little endian. `data` points into the mapped file, has any alignment, and
// lives as long as its SafetensorsReader. Whoever has read it asks CheckUnchanged.
struct TensorView {
  Dtype dtype = Dtype::kF32;
  std::vector<uint64_t> shape;
  const uint8_t* data = nullptr;
  size_t bytes = 0;
  // Which of SafetensorsReader::files() it lies in.
  size_t file = 0;
};

// Immutable and thread-safe. Files are mapped: only pages that are looked at are read.
class SafetensorsReader {
 public:
  // Errors are those of ParseSafetensorsHeader, and NOT_FOUND when the file cannot be opened.
  static absl::StatusOr<std::unique_ptr<SafetensorsReader>> OpenFile(const std::string& path);

  // Opens DIRECTORY/model.safetensors or, when there is none, the files that
  // DIRECTORY/model.safetensors.index.json names. Of these, exactly the tensors in its weight_map
  // are visible. Further errors:
  //   NOT_FOUND         neither is there, or the index names a file or tensor that is missing.
  //   INVALID_ARGUMENT  the index is malformed, or names a file outside the folder.
  static absl::StatusOr<std::unique_ptr<SafetensorsReader>> OpenFolder(
      const std::string& directory);

  // By name, ascending.
  const absl::btree_map<std::string, TensorView>& tensors() const { return tensors_; }

  // NOT_FOUND naming the file or folder and the tensor.
  absl::StatusOr<const TensorView*> Find(absl::string_view name) const;

  // The __metadata__ of the (first) file.
  const absl::btree_map<std::string, std::string>& metadata() const { return metadata_; }

  const std::string& PathOf(const TensorView& tensor) const { return files_[tensor.file]->path(); }

  // OK when what was read of `data`, which lies in one of the files, or of all files, is what they
  // held when they were opened. DATA_LOSS otherwise, see MappedFile::CheckUnchanged.
  absl::Status CheckUnchanged(const uint8_t* data) const;
  absl::Status CheckUnchanged() const;

  // Starts reading a part of a tensor, or several, into memory without waiting. `data` lies in one
  // of the mapped files.
  void WillNeed(const uint8_t* data, size_t bytes) const;

  // The opposite: this process keeps none of it that it need not.
  void DontNeed(const uint8_t* data, size_t bytes) const;

  // Names of the files and which versions of them are open.
  std::string Identity() const;

 private:
  using WantedNames = std::vector<std::string>;

  // The file that `data` lies in, and where; null when in none.
  std::pair<const MappedFile*, size_t> FileOf(const uint8_t* data) const;

  explicit SafetensorsReader(std::string source) : source_(std::move(source)) {}

  // Maps one file and adds its tensors; those named by `wanted` only, when it is not null.
  absl::Status AddFile(const std::string& path, const WantedNames* wanted);

  const std::string source_;
  std::vector<std::unique_ptr<MappedFile>> files_;
  absl::btree_map<std::string, TensorView> tensors_;
  absl::btree_map<std::string, std::string> metadata_;
};

}  // namespace expertmesh::checkpoint

#endif  // EXPERTMESH_COMMON_CHECKPOINT_SAFETENSORS_H_
