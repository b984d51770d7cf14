#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/balance/routing_record.h"
#include "common/balance/routing_record_format.h"
#include "common/base/status_macros.h"

namespace expertmesh::balance {
namespace {

absl::Status About(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

}  // namespace

RoutingRecordReader::RoutingRecordReader(std::string path, int file, uint64_t size)
    : path_(std::move(path)), file_(file), size_(size) {}

RoutingRecordReader::~RoutingRecordReader() { close(file_); }

absl::StatusOr<std::unique_ptr<RoutingRecordReader>> RoutingRecordReader::Open(
    const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) {
    const std::string message = absl::StrCat(path, ": cannot read: ", std::strerror(errno));
    return errno == ENOENT ? absl::NotFoundError(message) : absl::UnavailableError(message);
  }
  struct stat status = {};
  const bool known = fstat(file, &status) == 0;
  std::unique_ptr<RoutingRecordReader> reader(
      new RoutingRecordReader(path, file, known ? static_cast<uint64_t>(status.st_size) : 0));
  if (!known || !S_ISREG(status.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": is no recording of routing: not a regular file"));
  }
  RETURN_IF_ERROR(reader->ReadHeader());
  return reader;
}

absl::Status RoutingRecordReader::ReadHeader() {
  std::string header;
  const uint64_t prefix_bytes = std::min(size_, kRecordPrefixBytes);
  RETURN_IF_ERROR(ReadAt(0, prefix_bytes, &header));
  const absl::Status cut_off = absl::OutOfRangeError(
      absl::StrCat(path_, ": ends at byte ", size_, ", within its header; record again"));
  if (prefix_bytes < kRecordPrefixBytes && kRecordMagic == header.substr(0, kRecordMagic.size())) {
    return cut_off;
  }
  if (size_ == 0) {
    return cut_off;
  }
  const absl::StatusOr<uint32_t> rest = DecodeRecordPrefix(header);
  if (!rest.ok()) {
    return About(path_, rest.status());
  }
  offset_ = kRecordPrefixBytes + *rest;
  if (offset_ > size_) {
    return cut_off;
  }
  RETURN_IF_ERROR(ReadAt(0, offset_, &header));
  absl::StatusOr<RecordedModel> model = DecodeRecordHeader(header, &seed_);
  if (!model.ok()) {
    return About(path_, model.status());
  }
  model_ = *std::move(model);
  return absl::OkStatus();
}

absl::Status RoutingRecordReader::ReadAt(uint64_t offset, uint64_t count,
                                         std::string* bytes) const {
  bytes->resize(count);
  for (uint64_t done = 0; done < count;) {
    const ssize_t got =
        pread(file_, bytes->data() + done, count - done, static_cast<off_t>(offset + done));
    if (got == 0 || (got < 0 && errno != EINTR)) {
      return absl::UnavailableError(
          absl::StrCat(path_, ": cannot read ", count, " bytes at ", offset, ": ",
                       got == 0 ? "the file became shorter" : std::strerror(errno)));
    }
    done += got < 0 ? 0 : static_cast<uint64_t>(got);
  }
  return absl::OkStatus();
}

absl::Status RoutingRecordReader::Damaged(absl::string_view what) const {
  return absl::DataLossError(
      absl::StrCat(path_, ": the batch at byte ", offset_, " ", what, ": the file is damaged. The ",
                   batches_, batches_ == 1 ? " batch" : " batches",
                   " before it can be had from a copy of its first ", offset_, " bytes"));
}

absl::StatusOr<bool> RoutingRecordReader::Next(RecordedBatch* batch) {
  if (cut_off_bytes_ > 0 || offset_ == size_) {
    return false;
  }
  const uint64_t left = size_ - offset_;
  if (left < kBlockPrefixBytes) {
    cut_off_bytes_ = left;
    return false;
  }
  RETURN_IF_ERROR(ReadAt(offset_, kBlockPrefixBytes, &block_));
  const absl::StatusOr<uint32_t> body = DecodeBlockPrefix(block_, offset_);
  if (!body.ok()) {
    return Damaged(body.status().message());
  }
  const uint64_t rest = *body + kBlockChecksumBytes;
  if (rest > left - kBlockPrefixBytes) {
    cut_off_bytes_ = left;
    return false;
  }
  RETURN_IF_ERROR(ReadAt(offset_ + kBlockPrefixBytes, rest, &block_));
  if (const absl::Status decoded = DecodeBlock(block_, model_, seed_, batch); !decoded.ok()) {
    return Damaged(decoded.message());
  }
  offset_ += kBlockPrefixBytes + rest;
  ++batches_;
  return true;
}

}  // namespace expertmesh::balance
