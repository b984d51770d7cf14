#include "router_service/balance/state_store.h"

#define XXH_INLINE_ALL
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/durable_file.h"
#include "common/base/status_macros.h"
#include "common/json/json_text.h"

namespace expertmesh::balance_control {
namespace {

constexpr char kMagic[8] = {'E', 'M', 'S', 'T', 'A', 'T', 'E', '\n'};
constexpr uint32_t kVersion = 1;
// Of a model with a million experts and many routers.
constexpr size_t kMostBytes = size_t{1} << 30;

// Little endian, as every machine that this is built for.
struct Header {
  char magic[8];
  uint32_t version;
  uint32_t reserved;
  uint64_t size;
  uint64_t checksum;
};

std::string Newest(const std::string& folder) { return folder + "/balance.state"; }
std::string Previous(const std::string& folder) { return folder + "/balance.state.previous"; }

// The state in the file `path`. NOT_FOUND when there is no file.
absl::StatusOr<std::string> ReadState(const std::string& path) {
  if (access(path.c_str(), F_OK) != 0) {
    return absl::NotFoundError(absl::StrCat(path, " is not there"));
  }
  ASSIGN_OR_RETURN(const std::string bytes, ReadSmallFile(path, kMostBytes));
  const auto damaged = [&path](const auto&... what) {
    return absl::DataLossError(absl::StrCat(path, what...));
  };
  Header header;
  if (bytes.size() < sizeof(header)) {
    return damaged(" ends after ", bytes.size(), " bytes");
  }
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0) {
    return damaged(" is no state of a router");
  }
  if (header.version != kVersion) {
    return damaged(" is of version ", header.version, "; this program reads ", kVersion);
  }
  if (header.size != bytes.size() - sizeof(header)) {
    return damaged(" has ", bytes.size() - sizeof(header), " bytes of state; it had ", header.size);
  }
  std::string state = bytes.substr(sizeof(header));
  if (XXH3_64bits(state.data(), state.size()) != header.checksum) {
    return damaged(" is damaged: its checksum is wrong");
  }
  return state;
}

}  // namespace

absl::StatusOr<StateStore> StateStore::Open(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  const int lock = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock < 0) {
    return absl::UnavailableError(
        absl::StrCat(folder, ": cannot be used for state: ", std::strerror(errno)));
  }
  StateStore store(folder, lock);
  if (flock(lock, LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        folder, " is in use by another process; give each router a folder of its own"));
  }
  return store;
}

StateStore::~StateStore() {
  if (lock_ >= 0) {
    close(lock_);
  }
}

StateStore::StateStore(StateStore&& other) noexcept
    : folder_(std::move(other.folder_)), lock_(std::exchange(other.lock_, -1)) {}

absl::StatusOr<std::optional<std::string>> StateStore::Load(std::string* note) const {
  note->clear();
  absl::StatusOr<std::string> newest = ReadState(Newest(folder_));
  if (newest.ok()) {
    return *std::move(newest);
  }
  absl::StatusOr<std::string> previous = ReadState(Previous(folder_));
  if (previous.ok()) {
    *note = absl::StrCat(newest.status().message(), "; what was kept before it is used");
    return *std::move(previous);
  }
  if (absl::IsNotFound(newest.status()) && absl::IsNotFound(previous.status())) {
    return std::nullopt;
  }
  return absl::DataLossError(absl::StrCat(newest.status().message(), ", and ",
                                          previous.status().message(),
                                          "; remove both to begin without a state"));
}

absl::Status StateStore::Save(const std::string& state) const {
  // Only what is whole is worth keeping, and only if the newest is it.
  if (const absl::StatusOr<std::string> newest = ReadState(Newest(folder_)); newest.ok()) {
    std::error_code error;
    std::filesystem::rename(Newest(folder_), Previous(folder_), error);
    if (error) {
      return absl::UnavailableError(
          absl::StrCat(Previous(folder_), ": cannot be written: ", error.message()));
    }
  }
  Header header = {};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.version = kVersion;
  header.size = state.size();
  header.checksum = XXH3_64bits(state.data(), state.size());
  std::string bytes(reinterpret_cast<const char*>(&header), sizeof(header));
  bytes += state;
  return WriteDurably(Newest(folder_), bytes);
}

}  // namespace expertmesh::balance_control
