#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/balance/routing_record.h"
#include "common/balance/routing_record_format.h"
#include "common/base/status_macros.h"

namespace expertmesh::balance {
namespace {

absl::Status Failed(absl::string_view name, absl::string_view what) {
  return absl::UnavailableError(absl::StrCat(name, ": cannot ", what, ": ", std::strerror(errno)));
}

std::string OlderName(const std::string& name) { return absl::StrCat(name, ".1"); }

// 0 when there is no such file.
uint64_t SizeOf(const std::string& name) {
  struct stat status = {};
  return stat(name.c_str(), &status) == 0 ? static_cast<uint64_t>(status.st_size) : 0;
}

bool Exists(const std::string& name) { return access(name.c_str(), F_OK) == 0; }

// Whether the file may become the older one: a recording of any version, or one that was killed
// before it wrote anything.
absl::Status CheckReplaceable(const std::string& name) {
  if (!Exists(name)) {
    return absl::OkStatus();
  }
  const absl::Status opened = RoutingRecordReader::Open(name).status();
  if (absl::IsInvalidArgument(opened)) {
    return absl::AlreadyExistsError(
        absl::StrCat(name, ": is there and is no recording; move it away or choose another name"));
  }
  return absl::IsUnavailable(opened) ? opened : absl::OkStatus();
}

// A file that was killed before its first batch is worth nothing.
bool HasBatch(const std::string& name) {
  const absl::StatusOr<std::unique_ptr<RoutingRecordReader>> reader =
      RoutingRecordReader::Open(name);
  RecordedBatch batch;
  return !absl::IsDataLoss(reader.status()) &&
         (!reader.ok() || (*reader)->Next(&batch).value_or(true));
}

}  // namespace

RoutingRecordWriter::RoutingRecordWriter(std::string name, RecordedModel model, uint64_t max_bytes)
    : name_(std::move(name)), model_(std::move(model)), max_file_bytes_(max_bytes / 2) {
  header_ = EncodeRecordHeader(model_, &seed_);
}

absl::StatusOr<std::unique_ptr<RoutingRecordWriter>> RoutingRecordWriter::Create(
    std::string name, RecordedModel model, uint64_t max_bytes) {
  RETURN_IF_ERROR(ValidateRecordedModel(model));
  RETURN_IF_ERROR(CheckReplaceable(name));
  RETURN_IF_ERROR(CheckReplaceable(OlderName(name)));
  std::unique_ptr<RoutingRecordWriter> writer(
      new RoutingRecordWriter(std::move(name), std::move(model), max_bytes));
  if (writer->max_file_bytes_ < 2 * writer->header_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_bytes is ", max_bytes, "; this model needs at least ",
                     4 * writer->header_.size(), ", and should have many times that"));
  }
  RETURN_IF_ERROR(writer->Begin());
  return writer;
}

RoutingRecordWriter::~RoutingRecordWriter() {
  if (file_ >= 0) {
    close(file_);
  }
}

absl::Status RoutingRecordWriter::Begin() {
  const std::string older = OlderName(name_);
  if (Exists(name_)) {
    if (HasBatch(name_) ? std::rename(name_.c_str(), older.c_str()) != 0
                        : unlink(name_.c_str()) != 0) {
      return Failed(name_, absl::StrCat("rename to ", older));
    }
  }
  older_size_ = SizeOf(older);
  if (older_size_ > max_file_bytes_) {
    // An earlier recording, which was allowed more.
    if (unlink(older.c_str()) != 0) {
      return Failed(older, "remove");
    }
    older_size_ = 0;
  }
  const int file = open(name_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (file < 0) {
    return Failed(name_, "create");
  }
  if (file_ >= 0) {
    close(file_);
  }
  file_ = file;
  size_ = 0;
  return Write(header_);
}

absl::Status RoutingRecordWriter::Write(absl::string_view bytes) {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t written =
        pwrite(file_, bytes.data() + done, bytes.size() - done, static_cast<off_t>(size_ + done));
    if (written < 0 && errno != EINTR) {
      const absl::Status failed = Failed(name_, "write");
      // What is there of it would be taken for a damaged block once another one follows.
      (void)!ftruncate(file_, static_cast<off_t>(size_));
      return failed;
    }
    done += written < 0 ? 0 : static_cast<size_t>(written);
  }
  size_ += bytes.size();
  return absl::OkStatus();
}

absl::Status RoutingRecordWriter::Add(const RecordedBatch& batch) {
  const RecordedLayer* layer = FindRecordedLayer(model_, batch.layer);
  if (layer == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", batch.layer, " is none of those that this recording has"));
  }
  if (batch.experts.size() != uint64_t{batch.tokens} * layer->top_k) {
    return absl::InvalidArgumentError(
        absl::StrCat("a batch of ", batch.tokens, " tokens has ", batch.experts.size(),
                     " experts; layer ", batch.layer, " takes ", layer->top_k, " a token"));
  }
  for (const uint32_t expert : batch.experts) {
    if (expert >= layer->num_experts && expert != kNoExpert) {
      return absl::InvalidArgumentError(absl::StrCat("expert ", expert, " of layer ", batch.layer,
                                                     ", which has ", layer->num_experts));
    }
  }
  const uint64_t most = batch.experts.size() * 2 + 64;
  if (most > kMaxBlockBytes || header_.size() + most > max_file_bytes_) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a batch of ", batch.tokens, " tokens may take ", most, " bytes, more than one of ",
        std::min<uint64_t>(kMaxBlockBytes, max_file_bytes_ - header_.size()),
        "; record smaller batches, or allow the recording more"));
  }
  if (size_ == 0) {
    RETURN_IF_ERROR(Write(header_));  // It could not be written before.
  } else if (size_ + most > max_file_bytes_) {
    RETURN_IF_ERROR(Begin());
  }
  EncodeBlock(batch, *layer, size_, seed_, &block_);
  return Write(block_);
}

absl::StatusOr<std::vector<std::string>> RecordingFiles(const std::string& name) {
  std::vector<std::string> files;
  for (const std::string& candidate : {OlderName(name), name}) {
    if (Exists(candidate)) {
      files.push_back(candidate);
    }
  }
  if (files.size() == 2 && absl::IsOutOfRange(RoutingRecordReader::Open(name).status())) {
    files.pop_back();  // A kill in the moment of its beginning: all there is of it is before it.
  }
  if (files.empty()) {
    return absl::NotFoundError(
        absl::StrCat(name, ": there is no such recording, nor ", OlderName(name)));
  }
  return files;
}

}  // namespace expertmesh::balance
