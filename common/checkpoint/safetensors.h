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
#include "common/checkpoint/weight_index.h"
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
  // By the index of the checkpoint there is such a tensor; true as well where there is no index.
  bool listed = true;
};

// Immutable and thread-safe. Files are mapped: only pages that are looked at are read.
class SafetensorsReader {
 public:
  // Errors are those of ParseSafetensorsHeader, and NOT_FOUND when the file cannot be opened.
  static absl::StatusOr<std::unique_ptr<SafetensorsReader>> OpenFile(const std::string& path);

  // Opens DIRECTORY/model.safetensors or, when there is none, those of the files that
  // DIRECTORY/model.safetensors.index.json names which are there. Where index and files disagree
  // the files' own headers count, and warnings() says so: a tensor is where exactly one file has
  // it, or several have it and the index names one of these. Further errors:
  //   NOT_FOUND         no file is there.
  //   INVALID_ARGUMENT  the index is malformed, or names a file outside the folder.
  static absl::StatusOr<std::unique_ptr<SafetensorsReader>> OpenFolder(
      const std::string& directory);

  // By name, ascending.
  const absl::btree_map<std::string, TensorView>& tensors() const { return tensors_; }

  // NOT_FOUND naming the file or folder and the tensor; for one that the index has in a file that
  // is not there, this file.
  absl::StatusOr<const TensorView*> Find(absl::string_view name) const;

  // There is such a tensor in this checkpoint, though Find may not give it: its file is missing.
  bool Knows(absl::string_view name) const {
    return tensors_.contains(name) || absent_.contains(name) || ambiguous_.contains(name);
  }

  // Tensors that the index has and Find does not give, each with the file that it should be in.
  const absl::btree_map<std::string, std::string>& absent() const { return absent_; }

  // Every file that the index names is there.
  bool complete() const { return missing_files_.empty(); }

  // What is worth a line in a log: whole sentences.
  const std::vector<std::string>& warnings() const { return warnings_; }

  // The __metadata__ of the (first) file.
  const absl::btree_map<std::string, std::string>& metadata() const { return metadata_; }

  const std::string& PathOf(const TensorView& tensor) const { return files_[tensor.file]->path(); }
  // Of a tensor that Knows() has: the file it is in, or should be.
  std::string PlaceOf(absl::string_view name) const;

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
  // The file that `data` lies in, and where; null when in none.
  std::pair<const MappedFile*, size_t> FileOf(const uint8_t* data) const;

  explicit SafetensorsReader(std::string source) : source_(std::move(source)) {}

  // A tensor of a file, not yet placed.
  using Found = std::pair<std::string, TensorView>;

  // Maps one file; returns its tensors.
  absl::StatusOr<std::vector<Found>> AddFile(const std::string& path);
  absl::Status AddFiles(const WeightIndex& index);
  // Tensors that are not where the index has them, by the files that have them.
  void AddOthers(const WeightIndex& index, std::vector<Found> others);
  void NoteAbsent(const WeightIndex& index);
  bool IsMissing(const std::string& file) const;
  std::string WhyNotFound(absl::string_view name) const;

  const std::string source_;
  std::vector<std::unique_ptr<MappedFile>> files_;
  absl::btree_map<std::string, TensorView> tensors_;
  absl::btree_map<std::string, std::string> absent_;
  // What Find says of tensors that several files have.
  absl::btree_map<std::string, std::string> ambiguous_;
  std::vector<std::string> missing_files_;  // Ascending.
  std::vector<std::string> warnings_;
  absl::btree_map<std::string, std::string> metadata_;
};

}  // namespace expertmesh::checkpoint

#endif  // EXPERTMESH_COMMON_CHECKPOINT_SAFETENSORS_H_
