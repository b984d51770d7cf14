#include "common/checkpoint/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

namespace expertmesh::checkpoint {
namespace {

std::string IdentityOf(const struct stat& info) {
  return absl::StrCat(info.st_ino, " ", info.st_size, " ",
                      absl::ToUnixNanos(absl::TimeFromTimespec(info.st_mtim)));
}

}  // namespace

MappedFile::MappedFile(std::string path, int file, std::string identity, const uint8_t* data,
                       size_t size)
    : path_(std::move(path)),
      file_(file),
      identity_(std::move(identity)),
      data_(data),
      size_(size) {
  if (data_ != nullptr) {
    guard_.emplace(data_, size_);
  }
}

absl::StatusOr<std::unique_ptr<MappedFile>> MappedFile::Open(const std::string& path) {
  // Not waiting for a writer, if it is a pipe.
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) {
    return absl::NotFoundError(absl::StrCat(path, ": ", std::strerror(errno)));
  }
  absl::Cleanup close_file = [file] { close(file); };
  struct stat info;
  if (fstat(file, &info) != 0 || !S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  }
  const size_t size = static_cast<size_t>(info.st_size);
  void* data = nullptr;
  if (size > 0) {
    data = mmap(nullptr, size, PROT_READ, MAP_SHARED, file, 0);
    if (data == MAP_FAILED) {
      return absl::ResourceExhaustedError(
          absl::StrCat(path, ": cannot map ", size, " bytes: ", std::strerror(errno)));
    }
  }
  std::move(close_file).Cancel();
  return std::unique_ptr<MappedFile>(
      new MappedFile(path, file, IdentityOf(info), static_cast<const uint8_t*>(data), size));
}

MappedFile::~MappedFile() {
  guard_.reset();
  if (data_ != nullptr) {
    munmap(const_cast<uint8_t*>(data_), size_);
  }
  close(file_);
}

absl::Status MappedFile::CheckUnchanged() const {
  constexpr absl::string_view kRemedy =
      "Put the right file in its place, under a new name first and then renamed, and start this "
      "process again";
  struct stat info;
  if (fstat(file_, &info) != 0) {
    return absl::DataLossError(absl::StrCat(path_, ": cannot be read: ", std::strerror(errno)));
  }
  const auto now = static_cast<uint64_t>(info.st_size);
  if (now < size_) {
    return absl::DataLossError(absl::StrCat(path_, ": has ", now, " bytes, but had ", size_,
                                            " when it was opened: it was shortened while in use. ",
                                            kRemedy));
  }
  if (IdentityOf(info) != identity_) {
    return absl::DataLossError(absl::StrCat(path_, ": was written to while in use (", now,
                                            " bytes, ", size_, " when it was opened): what was ",
                                            "read may be of neither version. ", kRemedy));
  }
  if (const std::optional<size_t> fault = guard_ ? guard_->first_fault() : std::nullopt) {
    return absl::DataLossError(absl::StrCat(path_, ": bytes from ", *fault, " of ", size_,
                                            " could not be read: the disk fails, or the file was ",
                                            "changed while in use. ", kRemedy));
  }
  return absl::OkStatus();
}

void MappedFile::AdviseRandom() const {
  if (data_ != nullptr) {
    madvise(const_cast<uint8_t*>(data_), size_, MADV_RANDOM);
  }
}

void MappedFile::WillNeed(size_t offset, size_t count) const {
  if (offset >= size_ || count == 0) {
    return;
  }
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t begin = offset / page * page;
  const size_t end = offset + std::min(count, size_ - offset);
  madvise(const_cast<uint8_t*>(data_) + begin, end - begin, MADV_WILLNEED);
}

void MappedFile::DontNeed(size_t offset, size_t count) const {
  // A fault maps up to so much around it: what lies next to the bytes came along, and comes again
  // for who reads it.
  constexpr size_t kFaultAround = 64 << 10;
  if (count == 0 || offset >= size_) {
    return;
  }
  const size_t begin = offset / kFaultAround * kFaultAround;
  const size_t end =
      (offset + std::min(count, size_ - offset) + kFaultAround - 1) / kFaultAround * kFaultAround;
  // Past the end of the file there is nothing, up to the end of its last page.
  madvise(const_cast<uint8_t*>(data_) + begin, std::min(end, size_) - begin, MADV_DONTNEED);
}

}  // namespace expertmesh::checkpoint
