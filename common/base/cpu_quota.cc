#include "common/base/cpu_quota.h"

#include <algorithm>
#include <fstream>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace expertmesh {
namespace {

std::vector<std::string> LinesOf(const std::string& path) {
  std::vector<std::string> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    lines.push_back(std::move(line));
  }
  return lines;
}

bool Lists(absl::string_view list, absl::string_view item) {
  const std::vector<absl::string_view> items = absl::StrSplit(list, ',');
  return std::find(items.begin(), items.end(), item) != items.end();
}

// A hierarchy of groups that may limit CPU time, where it is mounted.
struct Mount {
  int version = 2;
  // The group that is seen at `point`.
  std::string root;
  std::string point;
};

// ID PARENT DEVICE ROOT POINT OPTIONS [TAG]... - TYPE SOURCE OPTIONS
std::vector<Mount> FindMounts(const std::string& root) {
  std::vector<Mount> mounts;
  for (const std::string& line : LinesOf(root + "/proc/self/mountinfo")) {
    const std::vector<absl::string_view> halves = absl::StrSplit(line, absl::MaxSplits(" - ", 1));
    const std::vector<std::string> place = absl::StrSplit(halves[0], ' ');
    if (halves.size() < 2 || place.size() < 5) {
      continue;
    }
    const std::vector<absl::string_view> kind = absl::StrSplit(halves[1], ' ');
    const bool v1 = kind[0] == "cgroup" && kind.size() > 2 && Lists(kind[2], "cpu");
    if (v1 || kind[0] == "cgroup2") {
      mounts.push_back({v1 ? 1 : 2, place[3], absl::StrReplaceAll(place[4], {{"\\040", " "}})});
    }
  }
  return mounts;
}

// The group of this process: ID:CONTROLLERS:PATH, where version 2 is 0 and has no controllers.
std::string GroupOf(const std::string& root, int version) {
  for (const std::string& line : LinesOf(root + "/proc/self/cgroup")) {
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() == 3 &&
        (version == 2 ? parts[0] == "0" && parts[1].empty() : Lists(parts[1], "cpu"))) {
      return parts[2];
    }
  }
  return "/";
}

// One group's own quota in cores.
std::optional<double> QuotaOf(const std::string& folder, int version) {
  std::vector<std::string> words;
  if (version == 2) {
    const std::vector<std::string> lines = LinesOf(folder + "/cpu.max");  // QUOTA PERIOD
    words = lines.empty() ? words : absl::StrSplit(lines[0], ' ', absl::SkipEmpty());
  } else {
    for (const char* name : {"/cpu.cfs_quota_us", "/cpu.cfs_period_us"}) {
      const std::vector<std::string> lines = LinesOf(folder + name);
      words.push_back(lines.empty() ? "" : lines[0]);
    }
  }
  double quota = 0;
  double period = 0;
  // Without a limit: "max", or -1.
  if (words.size() != 2 || !absl::SimpleAtod(words[0], &quota) ||
      !absl::SimpleAtod(words[1], &period) || !(quota > 0) || !(period > 0)) {
    return std::nullopt;
  }
  return quota / period;
}

// Of all groups from the process's own to the one that is mounted; in a container without a
// namespace for groups the path begins with the mounted group, and may lie outside of it.
void AddQuotas(const std::string& root, const Mount& mount, std::optional<double>* least) {
  const std::string path = GroupOf(root, mount.version);
  absl::string_view group = absl::StripSuffix(path, "/");
  const absl::string_view mounted = absl::StripSuffix(mount.root, "/");
  if (absl::StartsWith(group, absl::StrCat(mounted, "/")) || group == mounted) {
    group.remove_prefix(mounted.size());
  } else {
    group = {};
  }
  while (true) {
    const std::optional<double> quota =
        QuotaOf(absl::StrCat(root, mount.point, group), mount.version);
    if (quota && (!*least || *quota < **least)) {
      *least = quota;
    }
    if (group.empty()) {
      return;
    }
    group = group.substr(0, group.rfind('/'));
  }
}

}  // namespace

std::optional<double> CpuQuota(const std::string& root) {
  std::optional<double> least;
  for (const Mount& mount : FindMounts(root)) {
    AddQuotas(root, mount, &least);
  }
  return least;
}

}  // namespace expertmesh
