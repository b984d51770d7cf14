#include "client/cpp/command/replay_cache.h"

#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "client/cpp/command/numbers.h"
#include "client/cpp/command/progress.h"
#include "client/cpp/command/statistics.h"
#include "client/cpp/replay/cache_replay.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/safetensors_writer.h"
#include "common/expert_cache/cache_policy.h"
#include "nlohmann/json.hpp"

namespace expertmesh::command {
namespace {

struct CacheSize {
  std::string name;
  uint64_t bytes = 0;
};

uint64_t AllBytes(const replay::CacheTrace& trace, const std::vector<uint64_t>& expert_bytes) {
  uint64_t all = 0;
  for (size_t layer = 0; layer < expert_bytes.size(); ++layer) {
    all += expert_bytes[layer] * trace.layers()[layer].num_experts;
  }
  return all;
}

// "25%,8GiB", of experts that take `all` bytes.
absl::StatusOr<std::vector<CacheSize>> ParseSizes(const std::string& text, uint64_t all) {
  std::vector<CacheSize> sizes;
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    CacheSize size = {.name = std::string(part)};
    double percent = 0;
    if (absl::ConsumeSuffix(&part, "%")) {
      if (!absl::SimpleAtod(part, &percent) || !(percent >= 0 && percent <= 100)) {
        return absl::InvalidArgumentError(
            absl::StrCat("--cache has '", size.name, "'; use 0% to 100%, or a size such as 8GiB"));
      }
      size.bytes = static_cast<uint64_t>(static_cast<double>(all) * percent / 100);
    } else {
      ASSIGN_OR_RETURN(size.bytes, ParseBytes(part));
    }
    sizes.push_back(std::move(size));
  }
  return sizes;
}

}  // namespace

std::vector<OptionSpec> CacheOptions() {
  return {{.name = "cache",
           .value = "SIZE,...",
           .help =
               "instead: compares policies of a cache of so much of the experts (25%, 8GiB), by "
               "which share of uses finds them there"}};
}

absl::Status ReplayCaches(const Options& options, const ReplayedLoad& opened) {
  if (!options.Has("recording")) {
    return absl::InvalidArgumentError(
        "--cache needs --recording: a made-up load has no order of batches "
        "(expertmesh-router --record-routing)");
  }
  ASSIGN_OR_RETURN(const replay::CacheTrace trace,
                   replay::CacheTrace::Read(options.Text("recording")));
  const uint64_t all = AllBytes(trace, opened.expert_bytes);
  ASSIGN_OR_RETURN(const std::vector<CacheSize> sizes, ParseSizes(options.Text("cache"), all));
  std::vector<std::string> policies = expert_cache::CachePolicyNames();
  policies.push_back(replay::kOfflinePolicy);
  std::vector<std::vector<std::string>> rows = {{"cache", "of all", "policy", "hits", "loaded"}};
  nlohmann::json report = nlohmann::json::array();
  Progress progress("Replaying", sizes.size() * policies.size());
  for (const CacheSize& size : sizes) {
    for (const std::string& policy : policies) {
      ASSIGN_OR_RETURN(const replay::CacheOutcome outcome,
                       replay::RunCache(trace, opened.expert_bytes, size.bytes, policy));
      progress.Add(1);
      rows.push_back({FormatBytes(size.bytes),
                      absl::StrFormat("%.1f %%", 100.0 * static_cast<double>(size.bytes) /
                                                     static_cast<double>(all)),
                      policy, absl::StrFormat("%.1f %%", 100 * outcome.hit_rate()),
                      FormatBytes(outcome.loaded_bytes)});
      report.push_back({{"cache", size.name},
                        {"cache_bytes", size.bytes},
                        {"policy", policy},
                        {"uses", outcome.uses},
                        {"hits", outcome.hits},
                        {"loaded_bytes", outcome.loaded_bytes}});
    }
  }
  if (options.Has("json")) {
    RETURN_IF_ERROR(checkpoint::WriteFileAtomically(options.Text("json"), report.dump() + "\n",
                                                    checkpoint::Durability::kRename));
  }
  std::printf("%s batches of %zu layers, %s tokens; experts of %s in all\n%s",
              WithThousands(trace.batches()).c_str(), trace.layers().size(),
              WithThousands(trace.tokens()).c_str(), FormatBytes(all).c_str(),
              FormatTable(rows).c_str());
  return absl::OkStatus();
}

}  // namespace expertmesh::command
