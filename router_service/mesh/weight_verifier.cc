#include "router_service/mesh/weight_verifier.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/expert_digest.h"
#include "common/model/expert_slice.h"

namespace expertmesh::mesh {
namespace {

// Findings that change what is used are told together, these many at most: each makes a placement.
constexpr size_t kChangesTogether = 256;

// What SliceOf asks for beside that the slices are even.
absl::Status CheckSlice(const ExpertWeights& weights, IntermediateSlice slice) {
  if (weights.down.dtype == Dtype::kF4 && weights.up.rows / slice.count % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("slice ", slice.index, " of ", slice.count, " cuts a byte of type F4"));
  }
  return absl::OkStatus();
}

}  // namespace

WeightVerifier::WeightVerifier(std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint,
                               uint64_t bytes_per_second, Clock* clock,
                               std::function<void()> on_change)
    : checkpoint_(std::move(checkpoint)),
      bytes_per_second_(bytes_per_second),
      clock_(clock),
      on_change_(std::move(on_change)),
      trust_(&checkpoint_->model()),
      cache_(checkpoint_->directory(), checkpoint_->identity()),
      thread_([this] { Run(); }) {}

WeightVerifier::~WeightVerifier() { Stop(); }

void WeightVerifier::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    wake_.SignalAll();
  }
  if (thread_.joinable()) {
    thread_.join();
  }
}

std::vector<DamagedExpert> WeightVerifier::Judge(absl::Span<const NodeHoldings> nodes) {
  absl::MutexLock lock(&mutex_);
  WeightTrust::Verdict verdict = trust_.Judge(nodes);
  disputed_.assign(verdict.disputed.begin(), verdict.disputed.end());
  unverified_.assign(verdict.unverified.begin(), verdict.unverified.end());
  for (const std::string& address : verdict.silent) {
    if (!silent_.contains(address)) {
      spdlog::info("node {} says no digests of its weights: they are used without being verified",
                   address);
    }
  }
  silent_ = {verdict.silent.begin(), verdict.silent.end()};
  wake_.SignalAll();
  return std::move(verdict.damaged);
}

bool WeightVerifier::Next(checkpoint::ExpertSliceId* id, bool* hurried) {
  absl::MutexLock lock(&mutex_);
  while (!stopping_) {
    const bool may_read = bytes_per_second_ > 0 && !unverified_.empty();
    *hurried = !disputed_.empty();
    if (*hurried || (may_read && clock_->Now() >= not_before_)) {
      std::deque<checkpoint::ExpertSliceId>& queue = *hurried ? disputed_ : unverified_;
      *id = queue.front();
      queue.pop_front();
      return true;
    }
    if (may_read) {
      clock_->WaitUntil(&mutex_, &wake_, not_before_);
    } else {
      wake_.Wait(&mutex_);
    }
  }
  return false;
}

absl::StatusOr<uint64_t> WeightVerifier::Find(const checkpoint::ExpertSliceId& id,
                                              uint64_t* bytes) {
  *bytes = 0;
  if (const std::optional<uint64_t> known = cache_.Find(id)) {
    return *known;
  }
  ASSIGN_OR_RETURN(const ExpertWeights whole, checkpoint_->Hostable(id.layer, id.expert));
  RETURN_IF_ERROR(CheckSlice(whole, id.slice));
  const ExpertWeights weights = SliceOf(whole, id.slice);
  const uint64_t digest = checkpoint::DigestOf(weights);
  RETURN_IF_ERROR(checkpoint_->ConfirmRead(weights));
  *bytes = StoredBytes(weights);
  checkpoint_->Release(weights);
  cache_.Add(id, digest);
  return digest;
}

void WeightVerifier::Save() {
  if (cache_.size() == saved_) {
    return;
  }
  saved_ = cache_.size();
  if (const absl::Status status = cache_.Save(); !status.ok()) {
    spdlog::info("digests of the weights are not kept: {}", std::string(status.message()));
  }
}

void WeightVerifier::Run() {
  if (const absl::Status status = cache_.Load(); !status.ok()) {
    spdlog::warn("{}", std::string(status.message()));
  }
  saved_ = cache_.size();
  size_t changes = 0;
  checkpoint::ExpertSliceId id;
  bool hurried = false;
  bool told_of_missing = false;
  while (Next(&id, &hurried)) {
    uint64_t bytes = 0;
    const absl::StatusOr<uint64_t> digest = Find(id, &bytes);
    if (absl::IsNotFound(digest.status())) {
      if (!std::exchange(told_of_missing, true)) {
        spdlog::info("not all weights are verified by this router's checkpoint: {}",
                     std::string(digest.status().message()));
      }
    } else if (!digest.ok()) {
      spdlog::warn("layer {} expert {}: the checkpoint cannot tell the weights: {}", id.layer,
                   id.expert, std::string(digest.status().message()));
    }
    bool nothing_left = false;
    bool nobody_waits = false;
    {
      absl::MutexLock lock(&mutex_);
      const bool changed =
          trust_.Learn(id, digest.ok() ? std::optional<uint64_t>(*digest) : std::nullopt);
      changes += changed ? 1 : 0;
      if (!hurried && bytes > 0) {
        not_before_ =
            std::max(not_before_, clock_->Now()) +
            absl::Seconds(static_cast<double>(bytes) / static_cast<double>(bytes_per_second_));
      }
      nobody_waits = disputed_.empty();
      nothing_left = nobody_waits && (unverified_.empty() || bytes_per_second_ == 0);
    }
    const bool told = nothing_left || (nobody_waits && (hurried || bytes > 0));
    if (changes > 0 && (told || changes >= kChangesTogether)) {
      changes = 0;
      on_change_();
    }
    if (nothing_left) {
      Save();
    }
  }
  Save();
}

}  // namespace expertmesh::mesh
