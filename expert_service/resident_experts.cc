#include "expert_service/resident_experts.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_context.h"
#include "common/base/status_macros.h"
#include "common/base/thread_priority.h"

namespace expertmesh::node {
namespace {

std::vector<uint32_t> ExpertsOf(const ModelDescription& model) {
  std::vector<uint32_t> experts;
  for (const MoeLayerDescription& layer : model.layers) {
    experts.push_back(layer.hostable_experts());
  }
  return experts;
}

absl::Status StoppedError() {
  return absl::UnavailableError("this node is stopping; send the batch elsewhere");
}

}  // namespace

absl::StatusOr<std::unique_ptr<ResidentExperts>> ResidentExperts::Create(
    const ResidentExpertsOptions& options, const ModelDescription& model, ExpertPacker packer,
    std::shared_ptr<CacheMetrics> metrics) {
  if (options.limit_bytes < 1 || options.threads < 1) {
    return absl::InvalidArgumentError("limit_bytes and threads must be at least 1");
  }
  const std::vector<uint32_t> experts = ExpertsOf(model);
  ASSIGN_OR_RETURN(std::unique_ptr<expert_cache::CachePolicy> policy,
                   expert_cache::MakeCachePolicy(options.policy, experts));
  return std::unique_ptr<ResidentExperts>(new ResidentExperts(
      options, model, std::move(packer), std::move(policy), std::move(metrics)));
}

ResidentExperts::ResidentExperts(const ResidentExpertsOptions& options,
                                 const ModelDescription& model, ExpertPacker packer,
                                 std::unique_ptr<expert_cache::CachePolicy> policy,
                                 std::shared_ptr<CacheMetrics> metrics)
    : packer_(std::move(packer)),
      clock_(options.clock),
      metrics_(std::move(metrics)),
      memory_(WeightMemory::Create(options.limit_bytes)),
      cache_(ExpertsOf(model), options.limit_bytes, std::move(policy)) {
  for (const MoeLayerDescription& layer : model.layers) {
    place_of_layer_[layer.layer] = slots_.size();
    slots_.emplace_back(layer.hostable_experts());
  }
  for (int i = 0; i < options.threads; ++i) {
    threads_.emplace_back([this] {
      LetOtherThreadsHaveMost();
      Run();
    });
  }
}

ResidentExperts::~ResidentExperts() { Stop(); }

void ResidentExperts::Stop() {
  Outside outside;
  {
    const absl::MutexLock lock(&mutex_);
    stopping_ = true;
    while (!waiting_.empty()) {
      Answer(std::move(waiting_.front()), StoppedError(), &outside);
      waiting_.pop_front();
    }
  }
  memory_->Stop();
  DoOutside(std::move(outside));
  const absl::MutexLock lock(&join_mutex_);
  for (std::thread& thread : threads_) {
    if (thread.joinable()) {
      thread.join();
    }
  }
}

void ResidentExperts::DoOutside(Outside outside) {
  outside.freed.clear();
  for (auto& [done, answer] : outside.answers) {
    std::move(done)(std::move(answer));
  }
}

bool ResidentExperts::KeepRoom(const ExpertSource& source, uint64_t bytes) {
  const size_t place = PlaceOf(source.layer->layer);
  const absl::MutexLock lock(&mutex_);
  if (bytes == 0 || cache_.Has(place, source.expert) || !cache_.HasRoom(bytes) ||
      !memory_->TryReserve(bytes)) {
    return false;
  }
  cache_.Add(place, source.expert, bytes);
  return true;
}

void ResidentExperts::GiveBackRoom(const ExpertSource& source, uint64_t bytes) {
  const absl::MutexLock lock(&mutex_);
  cache_.Remove(PlaceOf(source.layer->layer), source.expert);
  memory_->Free(bytes);
}

ResidentExperts::Slot& ResidentExperts::SlotOf(const HostedExpert& expert) {
  return slots_[PlaceOf(expert.source().layer->layer)][expert.source().expert];
}

void ResidentExperts::Host(const HostedExpert* expert, Packed packed) {
  if (packed != nullptr) {
    packed = memory_->Count(std::move(packed), expert->bytes());
  }
  const size_t place = PlaceOf(expert->source().layer->layer);
  Packed freed;
  {
    const absl::MutexLock lock(&mutex_);
    Slot& slot = SlotOf(*expert);
    freed = std::move(slot.packed);  // Another, no longer offered, has not gone yet.
    if (packed == nullptr) {
      cache_.Remove(place, expert->source().expert);
    } else if (!cache_.Has(place, expert->source().expert)) {
      freed.swap(packed);  // Others needed the room meanwhile.
    }
    slot = {expert, std::move(packed)};
  }
  metrics_->SetResident(memory_->used_bytes());
}

void ResidentExperts::Forget(const HostedExpert* expert) {
  Packed freed;
  {
    const absl::MutexLock lock(&mutex_);
    Slot& slot = SlotOf(*expert);
    if (slot.hosted != expert) {
      return;
    }
    cache_.Remove(PlaceOf(expert->source().layer->layer), expert->source().expert);
    freed = std::move(slot.packed);
    slot = {};
  }
  freed.reset();
  metrics_->SetResident(memory_->used_bytes());
}

ResidentExperts::Packed ResidentExperts::Find(const HostedLayer& layer, uint32_t expert) {
  const HostedExpert* const hosted = layer.experts[expert].get();
  const Slot& slot = SlotOf(*hosted);
  return slot.hosted == hosted ? slot.packed : nullptr;
}

size_t ResidentExperts::Lease(const HostedLayer& layer, absl::Span<const uint32_t> experts,
                              ExpertLease* lease) {
  size_t found = 0;
  for (const uint32_t expert : experts) {
    if (Packed packed = Find(layer, expert); packed != nullptr) {
      lease->Add(expert, std::move(packed));
      ++found;
    }
  }
  if (found < experts.size()) {
    lease->Release();
  }
  return found;
}

bool ResidentExperts::TryAcquire(const HostedLayer& layer, absl::Span<const uint32_t> experts,
                                 ExpertLease* lease) {
  size_t hits = 0;
  {
    const absl::MutexLock lock(&mutex_);
    cache_.Use(PlaceOf(layer.description->layer), experts);
    hits = Lease(layer, experts, lease);
  }
  metrics_->CountUses(hits, experts.size() - hits);
  return hits == experts.size();
}

void ResidentExperts::Await(std::shared_ptr<const HostedLayer> layer, std::vector<uint32_t> experts,
                            absl::Time deadline, Done done) {
  {
    const absl::MutexLock lock(&mutex_);
    if (!stopping_) {
      waiting_.push_back(
          {std::move(layer), std::move(experts), deadline, clock_->Now(), std::move(done)});
      return;
    }
  }
  std::move(done)(StoppedError());
}

void ResidentExperts::Answer(Waiting batch, absl::StatusOr<ExpertLease> answer, Outside* outside) {
  metrics_->RecordStall(clock_->Now() - batch.since);
  outside->answers.emplace_back(std::move(batch.done), std::move(answer));
  outside->layers.push_back(std::move(batch.layer));
}

void ResidentExperts::Run() {
  const auto wake = [this]()
                        ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_ || HasWork(); };
  while (true) {
    Outside outside;
    {
      const absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&wake));
      if (!HasWork()) {
        return;  // Stopping, and what is served is finished by another thread.
      }
      if (!serving_.has_value()) {
        Serve(&outside);
      } else {
        PackNext(&outside);
      }
    }
    DoOutside(std::move(outside));
  }
}

void ResidentExperts::Serve(Outside* outside) {
  Waiting batch = std::move(waiting_.front());
  waiting_.pop_front();
  if (batch.deadline <= clock_->Now()) {
    Answer(std::move(batch),
           absl::DeadlineExceededError(
               "timeout_us: the deadline passed while the batch waited for experts that are not "
               "in memory; allow more time, or give the node more --memory"),
           outside);
    return;
  }
  serving_.emplace(std::move(batch));
  FindMissing(outside);
  if (serving_->missing.empty()) {
    Finish(outside);
  }
}

void ResidentExperts::FindMissing(Outside* outside) {
  Serving& serving = *serving_;
  const HostedLayer& layer = *serving.batch.layer;
  const size_t place = PlaceOf(layer.description->layer);
  uint64_t bytes = 0;
  for (const uint32_t expert : serving.batch.experts) {
    serving.packed.push_back(Find(layer, expert));
    if (serving.packed.back() == nullptr) {
      serving.missing.push_back(serving.packed.size() - 1);
      bytes += layer.experts[expert]->bytes();
    }
  }
  serving.unfinished = serving.missing.size();
  std::vector<expert_cache::CachedExpert> dropped;
  cache_.MakeRoom(bytes, place, serving.batch.experts, &dropped);
  for (const expert_cache::CachedExpert& expert : dropped) {
    outside->freed.push_back(std::move(slots_[expert.layer][expert.expert].packed));
  }
  for (const size_t index : serving.missing) {
    const uint32_t expert = serving.batch.experts[index];
    const HostedExpert& hosted = *layer.experts[expert];
    if (SlotOf(hosted).hosted == &hosted) {
      cache_.Add(place, expert, hosted.bytes());
    }
  }
}

void ResidentExperts::PackNext(Outside* outside) {
  Serving& serving = *serving_;  // Stays until all that was begun is finished.
  const size_t index = serving.missing[serving.next++];
  const std::shared_ptr<const HostedLayer> layer = serving.batch.layer;
  const HostedExpert& expert = *layer->experts[serving.batch.experts[index]];
  mutex_.Unlock();
  absl::StatusOr<Packed> packed = Pack(expert);
  mutex_.Lock();
  const size_t place = PlaceOf(layer->description->layer);
  Slot& slot = SlotOf(expert);
  const bool kept = slot.hosted == &expert && cache_.Has(place, expert.source().expert);
  if (packed.ok()) {
    serving.packed[index] = *packed;
    if (kept) {
      slot.packed = *std::move(packed);
    }
  } else {
    serving.status.Update(packed.status());
    if (kept) {
      cache_.Remove(place, expert.source().expert);
    }
  }
  if (--serving.unfinished == 0) {
    Finish(outside);
  }
}

absl::StatusOr<ResidentExperts::Packed> ResidentExperts::Pack(const HostedExpert& expert) {
  if (!memory_->Reserve(expert.bytes())) {
    return StoppedError();
  }
  absl::StatusOr<ExpertPacker::Packed> read = packer_.Read(expert.source(), /*pack=*/true);
  if (read.ok() && read->digest != expert.digest()) {
    read = absl::InternalError(
        "its bytes in the checkpoint are not those of the start; restart the node");
  }
  if (read.ok()) {
    metrics_->CountLoaded(expert.bytes());
    return memory_->Count(std::move(read->expert), expert.bytes());
  }
  memory_->Free(expert.bytes());
  const std::string what = absl::StrCat("reading layer ", expert.source().layer->layer, " expert ",
                                        expert.source().expert, " again");
  // A router takes DATA_LOSS for damage on the way.
  return absl::IsDataLoss(read.status())
             ? absl::InternalError(absl::StrCat(what, ": ", read.status().message()))
             : WithContext(what, read.status());
}

void ResidentExperts::Finish(Outside* outside) {
  Serving serving = *std::move(serving_);
  serving_.reset();
  if (serving.status.ok()) {
    ExpertLease lease;
    for (size_t i = 0; i < serving.packed.size(); ++i) {
      lease.Add(serving.batch.experts[i], std::move(serving.packed[i]));
    }
    Answer(std::move(serving.batch), std::move(lease), outside);
  } else {
    Answer(std::move(serving.batch), serving.status, outside);
    std::move(serving.packed.begin(), serving.packed.end(), std::back_inserter(outside->freed));
  }
  // Others may have waited for the same.
  for (auto waiting = waiting_.begin(); waiting != waiting_.end();) {
    ExpertLease lease;
    if (Lease(*waiting->layer, waiting->experts, &lease) == waiting->experts.size()) {
      Answer(std::move(*waiting), std::move(lease), outside);
      waiting = waiting_.erase(waiting);
    } else {
      ++waiting;
    }
  }
  metrics_->SetResident(memory_->used_bytes());
}

}  // namespace expertmesh::node
