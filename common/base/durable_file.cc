#include "common/base/durable_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"

namespace expertmesh {
namespace {

absl::Status Failed(const std::string& path, absl::string_view what) {
  return absl::UnavailableError(absl::StrCat(path, ": cannot ", what, ": ", std::strerror(errno)));
}

// The whole of `bytes`, down to the disk.
absl::Status WriteFile(const std::string& path, absl::string_view bytes) {
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) {
    return Failed(path, "write");
  }
  const absl::Cleanup close_file = [file] { close(file); };
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t written = write(file, bytes.data() + done, bytes.size() - done);
    if (written < 0 && errno != EINTR) {
      return Failed(path, "write");
    }
    done += written < 0 ? 0 : static_cast<size_t>(written);
  }
  return fsync(file) == 0 ? absl::OkStatus() : Failed(path, "sync");
}

// Makes a rename in the folder of `path` last.
absl::Status SyncFolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const int file = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file < 0) {
    return Failed(folder, "open");
  }
  const absl::Cleanup close_file = [file] { close(file); };
  return fsync(file) == 0 ? absl::OkStatus() : Failed(folder, "sync");
}

}  // namespace

absl::Status WriteDurably(const std::string& path, absl::string_view bytes) {
  const std::string next = absl::StrCat(path, ".", getpid(), ".tmp");
  absl::Status status = WriteFile(next, bytes);
  if (status.ok() && std::rename(next.c_str(), path.c_str()) != 0) {
    status = Failed(path, "replace");
  }
  if (!status.ok()) {
    (void)unlink(next.c_str());
    return status;
  }
  return SyncFolderOf(path);
}

}  // namespace expertmesh
