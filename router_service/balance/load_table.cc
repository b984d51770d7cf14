#include "router_service/balance/load_table.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/peer_text.h"
#include "common/base/status_macros.h"
#include "router_service/balance/decision.h"

namespace expertmesh::balance_control {
namespace {

constexpr size_t kMostId = 64;
// Under it stands what was counted by routers that are not told apart.
constexpr char kOthers[] = "others";

uint64_t TokensOf(const LoadCounts& counts) {
  uint64_t tokens = 0;
  for (const auto& [layer, layer_counts] : counts) {
    tokens += layer_counts.tokens;
  }
  return tokens;
}

internal::v1::ReportLoadRequest ToProto(const std::string& id, const LoadCounts& totals) {
  internal::v1::ReportLoadRequest proto;
  proto.set_router_id(id);
  for (const auto& [layer, counts] : totals) {
    *proto.add_layers() = balance_control::ToProto(layer, counts);
  }
  return proto;
}

}  // namespace

LoadTable::LoadTable(const SteeredModel* model, std::string self_id, absl::Duration gone_after)
    : model_(model), self_id_(std::move(self_id)), gone_after_(gone_after) {}

bool LoadTable::Gone(const Router& router, absl::Time now) const {
  return now - router.heard > gone_after_;
}

void LoadTable::SetOwn(LoadCounts totals, uint64_t epoch, absl::Time now) {
  routers_[self_id_] = {std::move(totals), epoch, now};
}

void LoadTable::MergeOldest() {
  auto oldest = routers_.end();
  for (auto it = routers_.begin(); it != routers_.end(); ++it) {
    if (it->first != self_id_ &&
        (oldest == routers_.end() || it->second.heard < oldest->second.heard)) {
      oldest = it;
    }
  }
  if (oldest != routers_.end()) {
    AddCounts(oldest->second.totals, &others_);
    routers_.erase(oldest);
  }
}

absl::Status LoadTable::Report(const internal::v1::ReportLoadRequest& report, absl::Time now) {
  const std::string id = PeerText(report.router_id(), kMostId);
  if (id.empty() || id == self_id_ || id == kOthers) {
    return absl::InvalidArgumentError(absl::StrCat(
        "router_id is '", id, "', which is not that of another router; leave it to the program"));
  }
  ASSIGN_OR_RETURN(LoadCounts totals, CountsFromProto(*model_, report));
  if (!routers_.contains(id) && routers_.size() >= kMostRouters) {
    MergeOldest();
  }
  Router& router = routers_[id];
  // Reports may overtake each other: the larger totals are the later ones.
  if (router.totals.empty() || TokensOf(totals) >= TokensOf(router.totals)) {
    router.totals = std::move(totals);
    router.epoch = report.epoch();
  }
  router.heard = now;
  return absl::OkStatus();
}

std::shared_ptr<const LoadCounts> LoadTable::Totals() const {
  auto totals = std::make_shared<LoadCounts>(others_);
  for (const auto& [id, router] : routers_) {
    AddCounts(router.totals, totals.get());
  }
  return totals;
}

std::vector<v1::ReportingRouter> LoadTable::Describe(absl::Time now) const {
  std::vector<v1::ReportingRouter> described;
  for (const auto& [id, router] : routers_) {
    v1::ReportingRouter& written = described.emplace_back();
    written.set_router_id(id);
    written.set_self(id == self_id_);
    written.set_tokens(TokensOf(router.totals));
    written.set_epoch(router.epoch);
    written.set_gone(Gone(router, now));
    if (router.heard != absl::InfinitePast()) {
      written.set_age_ms(static_cast<uint64_t>(
          std::max<int64_t>(absl::ToInt64Milliseconds(now - router.heard), 0)));
    }
  }
  return described;
}

bool LoadTable::AllServe(uint64_t epoch, absl::Time now) const {
  return std::all_of(routers_.begin(), routers_.end(), [&](const auto& entry) {
    return entry.first == self_id_ || Gone(entry.second, now) || entry.second.epoch >= epoch;
  });
}

std::vector<internal::v1::ReportLoadRequest> LoadTable::Save() const {
  std::vector<internal::v1::ReportLoadRequest> saved;
  for (const auto& [id, router] : routers_) {
    saved.push_back(ToProto(id, router.totals));
  }
  if (!others_.empty()) {
    saved.push_back(ToProto(kOthers, others_));
  }
  return saved;
}

absl::Status LoadTable::Restore(const internal::v1::SavedState& saved) {
  for (const internal::v1::ReportLoadRequest& router : saved.routers()) {
    ASSIGN_OR_RETURN(LoadCounts totals, CountsFromProto(*model_, router));
    const std::string id = PeerText(router.router_id(), kMostId);
    if (id == kOthers || routers_.size() >= kMostRouters) {
      AddCounts(totals, &others_);
    } else {
      routers_[id].totals = std::move(totals);
    }
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::balance_control
