// A file mapped for reading.
#ifndef EXPERTMESH_COMMON_CHECKPOINT_MAPPED_FILE_H_
#define EXPERTMESH_COMMON_CHECKPOINT_MAPPED_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/checkpoint/fault_guard.h"

namespace expertmesh::checkpoint {

// Immutable and thread-safe. Readers of the bytes ask CheckUnchanged afterwards: a file that
// was shortened or written to meanwhile, or a disk that fails, ends no process (FaultGuard), but
// what was read is not what the file held.
class MappedFile {
 public:
  // NOT_FOUND when it cannot be opened, INVALID_ARGUMENT when it is no regular file.
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  absl::string_view bytes() const {
    return absl::string_view(reinterpret_cast<const char*>(data_), size_);
  }

  // "inode size mtime" when it was opened: another text when other bytes are there, unless somebody
  // takes pains.
  const std::string& identity() const { return identity_; }

  // DATA_LOSS naming the file, what was expected and what is there when the file is no longer as it
  // was when it was opened, or a page of it could not be read. A new file that is
  // renamed to its name changes nothing here.
  absl::Status CheckUnchanged() const;

  // From now on a page that is touched brings in no neighbours: looking at one tensor does not read
  // another one.
  void AdviseRandom() const;

  // Starts reading [offset, offset + count) into memory, in large pieces, without waiting.
  void WillNeed(size_t offset, size_t count) const;

  // [offset, offset + count), and what the system read around it, need not stay in this process; it
  // is read again when somebody looks at it.
  void DontNeed(size_t offset, size_t count) const;

 private:
  // Takes `file`, which is open, and the mapping.
  MappedFile(std::string path, int file, std::string identity, const uint8_t* data, size_t size);

  const std::string path_;
  const int file_;
  const std::string identity_;
  const uint8_t* const data_;  // Null when the file is empty.
  const size_t size_;
  std::optional<FaultGuard> guard_;  // Nothing when the file is empty.
};

}  // namespace expertmesh::checkpoint

#endif  // EXPERTMESH_COMMON_CHECKPOINT_MAPPED_FILE_H_
