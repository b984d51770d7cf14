#include "common/checkpoint/digest_cache.h"

#include <unistd.h>

#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/durable_file.h"
#include "common/base/status_macros.h"
#include "common/json/json_text.h"
#include "nlohmann/json.hpp"

namespace expertmesh::checkpoint {
namespace {

constexpr int kFormat = 1;
// Enough for a million experts.
constexpr size_t kMaxBytes = size_t{64} << 20;

// "layer/expert/slice of slices".
std::string NameOf(const ExpertSliceId& id) {
  return absl::StrCat(id.layer, "/", id.expert, "/", id.slice.index, "of", id.slice.count);
}

std::optional<ExpertSliceId> ParseName(const std::string& name) {
  const std::vector<absl::string_view> parts = absl::StrSplit(name, '/');
  if (parts.size() != 3) {
    return std::nullopt;
  }
  const std::pair<absl::string_view, absl::string_view> slice = absl::StrSplit(parts[2], "of");
  ExpertSliceId id;
  if (!absl::SimpleAtoi(parts[0], &id.layer) || !absl::SimpleAtoi(parts[1], &id.expert) ||
      !absl::SimpleAtoi(slice.first, &id.slice.index) ||
      !absl::SimpleAtoi(slice.second, &id.slice.count)) {
    return std::nullopt;
  }
  return id;
}

}  // namespace

DigestCache::DigestCache(std::string folder, std::string identity)
    : folder_(std::move(folder)), identity_(std::move(identity)) {}

std::string DigestCache::Path() const { return absl::StrCat(folder_, "/.expertmesh-digests.json"); }

absl::Status DigestCache::Load() {
  digests_.clear();
  const std::string path = Path();
  if (folder_.empty() || access(path.c_str(), F_OK) != 0) {
    return absl::OkStatus();
  }
  const auto damaged = [&path](absl::string_view why) {
    return absl::DataLossError(
        absl::StrCat(path, ": ", why, "; the digests will be computed again"));
  };
  const absl::StatusOr<std::string> text = ReadSmallFile(path, kMaxBytes);
  if (!text.ok()) {
    return damaged(text.status().message());
  }
  const absl::StatusOr<nlohmann::json> json = ParseJson(*text, path);
  if (!json.ok() || !json->is_object() || !json->contains("format") ||
      !json->contains("checkpoint") || !json->contains("digests") ||
      !(*json)["digests"].is_object()) {
    return damaged("is no cache of digests");
  }
  if ((*json)["format"] != kFormat || (*json)["checkpoint"] != identity_) {
    return absl::OkStatus();
  }
  absl::btree_map<ExpertSliceId, uint64_t> digests;
  for (const auto& item : (*json)["digests"].items()) {
    const std::optional<ExpertSliceId> id = ParseName(item.key());
    uint64_t digest = 0;
    if (!id || !item.value().is_string() ||
        !absl::SimpleHexAtoi(item.value().get_ref<const std::string&>(), &digest)) {
      return damaged(absl::StrCat("has an entry ", Quoted(item.key()), " that is no digest"));
    }
    digests[*id] = digest;
  }
  digests_ = std::move(digests);
  return absl::OkStatus();
}

std::optional<uint64_t> DigestCache::Find(const ExpertSliceId& id) const {
  const auto found = digests_.find(id);
  return found == digests_.end() ? std::nullopt : std::optional<uint64_t>(found->second);
}

absl::Status DigestCache::Save() const {
  if (folder_.empty()) {
    return absl::OkStatus();
  }
  nlohmann::json digests = nlohmann::json::object();
  for (const auto& [id, digest] : digests_) {
    digests[NameOf(id)] = absl::StrCat(absl::Hex(digest, absl::kZeroPad16));
  }
  const nlohmann::json json = {
      {"format", kFormat}, {"checkpoint", identity_}, {"digests", std::move(digests)}};
  return WriteDurably(Path(), json.dump(1));
}

}  // namespace expertmesh::checkpoint
