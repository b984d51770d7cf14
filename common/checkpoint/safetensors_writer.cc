#include "common/checkpoint/safetensors_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <optional>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/safetensors_header.h"
#include "common/json/json_text.h"
#include "nlohmann/json.hpp"

namespace expertmesh::checkpoint {
namespace {

// Writes PATH.tmp; Commit moves it to PATH, anything else removes it.
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path) : path_(path), temporary_(path + ".tmp") {}
  ~AtomicFile() {
    if (file_ >= 0) {
      close(file_);
      unlink(temporary_.c_str());
    }
  }
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  absl::Status Open() {
    file_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    return file_ >= 0 ? absl::OkStatus() : Failure("cannot create");
  }

  absl::Status Write(const void* data, size_t bytes) {
    const char* next = static_cast<const char*>(data);
    while (bytes > 0) {
      const ssize_t written = write(file_, next, bytes);
      if (written < 0) {
        if (errno == EINTR) {
          continue;
        }
        return Failure("cannot write");
      }
      next += written;
      bytes -= static_cast<size_t>(written);
    }
    return absl::OkStatus();
  }

  absl::Status Commit(Durability durability) {
    if (durability == Durability::kSync && fsync(file_) != 0) {
      return Failure("cannot sync");
    }
    if (rename(temporary_.c_str(), path_.c_str()) != 0) {
      return Failure("cannot rename");
    }
    // Renamed: from here on there is no temporary to remove.
    const int result = close(file_);
    file_ = -1;
    return result == 0 ? absl::OkStatus() : Failure("cannot close");
  }

 private:
  absl::Status Failure(absl::string_view what) const {
    return absl::InternalError(absl::StrCat(temporary_, ": ", what, ": ", std::strerror(errno)));
  }

  const std::string path_;
  const std::string temporary_;
  int file_ = -1;
};

// Where each tensor goes.
struct Layout {
  std::vector<size_t> order;    // Indices of specs in the order of the file.
  std::vector<uint64_t> bytes;  // Per spec.
  std::string header;           // With its length in front.
};

absl::StatusOr<Layout> Arrange(const std::string& path, absl::Span<const TensorSpec> specs) {
  Layout layout;
  layout.order.resize(specs.size());
  std::iota(layout.order.begin(), layout.order.end(), size_t{0});
  std::stable_sort(layout.order.begin(), layout.order.end(), [&](size_t a, size_t b) {
    return BitsOf(specs[a].dtype) > BitsOf(specs[b].dtype);
  });
  layout.bytes.resize(specs.size());
  nlohmann::json header = nlohmann::json::object();
  // Readers in Python ask for this.
  header["__metadata__"] = {{"format", "pt"}};
  absl::flat_hash_set<absl::string_view> names = {"__metadata__"};
  uint64_t offset = 0;
  for (const size_t index : layout.order) {
    const TensorSpec& spec = specs[index];
    if (!names.insert(spec.name).second) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": tensor ", Quoted(spec.name), " is named twice or reserved"));
    }
    const std::optional<uint64_t> bytes = TensorBytes(spec.dtype, spec.shape);
    uint64_t end = 0;
    if (!bytes.has_value() || __builtin_add_overflow(offset, *bytes, &end)) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": tensor ", Quoted(spec.name), ": shape ", ShapeString(spec.shape),
                       " of ", NameOf(spec.dtype), " overflows or is no whole number of bytes"));
    }
    layout.bytes[index] = *bytes;
    header[spec.name] = {{"dtype", std::string(NameOf(spec.dtype))},
                         {"shape", spec.shape},
                         {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception& error) {  // A name that is not UTF-8.
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", error.what()));
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');
  for (size_t i = 0; i < 8; ++i) {
    layout.header.push_back(static_cast<char>(text.size() >> (8 * i)));
  }
  layout.header.append(text);
  return layout;
}

}  // namespace

absl::Status WriteSafetensors(const std::string& path, absl::Span<const TensorSpec> specs,
                              const TensorProducer& produce, Durability durability) {
  ASSIGN_OR_RETURN(const Layout layout, Arrange(path, specs));
  AtomicFile file(path);
  RETURN_IF_ERROR(file.Open());
  RETURN_IF_ERROR(file.Write(layout.header.data(), layout.header.size()));
  for (const size_t index : layout.order) {
    uint64_t left = layout.bytes[index];
    const auto wrong_size = [&](absl::string_view what) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": tensor ", Quoted(specs[index].name),
                                                     ": ", what, " the ", layout.bytes[index],
                                                     " bytes of its shape were given"));
    };
    RETURN_IF_ERROR(produce(index, [&](const void* data, size_t bytes) -> absl::Status {
      if (bytes > left) {
        return wrong_size("more than");
      }
      left -= bytes;
      return file.Write(data, bytes);
    }));
    if (left > 0) {
      return wrong_size("fewer than");
    }
  }
  return file.Commit(durability);
}

absl::Status WriteSafetensors(const std::string& path, absl::Span<const TensorToWrite> tensors,
                              Durability durability) {
  std::vector<TensorSpec> specs;
  specs.reserve(tensors.size());
  for (const TensorToWrite& tensor : tensors) {
    specs.push_back({tensor.name, tensor.dtype, tensor.shape});
  }
  return WriteSafetensors(
      path, specs,
      [&](size_t index, const ByteSink& sink) {
        return sink(tensors[index].data.data(), tensors[index].data.size());
      },
      durability);
}

absl::Status WriteFileAtomically(const std::string& path, absl::string_view bytes,
                                 Durability durability) {
  AtomicFile file(path);
  RETURN_IF_ERROR(file.Open());
  RETURN_IF_ERROR(file.Write(bytes.data(), bytes.size()));
  return file.Commit(durability);
}

}  // namespace expertmesh::checkpoint
