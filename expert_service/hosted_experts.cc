#include "expert_service/hosted_experts.h"

#include <algorithm>
#include <map>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_context.h"
#include "common/base/status_macros.h"
#include "common/base/thread_priority.h"
#include "expert_service/gentle_pace.h"

namespace expertmesh::node {

HostedExperts::ExclusiveChange::ExclusiveChange(HostedExperts* owner) : owner_(owner) {
  absl::MutexLock lock(&owner_->mutex_);
  const auto free = [owner]()
                        ABSL_EXCLUSIVE_LOCKS_REQUIRED(owner->mutex_) { return !owner->changing_; };
  owner_->mutex_.Await(absl::Condition(&free));
  owner_->changing_ = true;
}

HostedExperts::ExclusiveChange::~ExclusiveChange() {
  absl::MutexLock lock(&owner_->mutex_);
  owner_->changing_ = false;
}

HostedExperts::HostedExperts(std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint,
                             experts::Backend* backend, HostedExpertsOptions options,
                             std::function<void()> on_change)
    : checkpoint_(std::move(checkpoint)),
      packer_(checkpoint_, backend, options.resident != nullptr),
      options_(std::move(options)),
      on_change_(std::move(on_change)),
      ledger_(std::make_shared<MemoryLedger>(options.memory_limit_bytes)),
      layers_(std::make_shared<const Layers>()) {
  EXPERTMESH_CHECK(options_.load_threads >= 1);
}

absl::StatusOr<uint64_t> HostedExperts::BytesToReserve(const ExpertSource& source) const {
  const absl::StatusOr<uint64_t> bytes = packer_.Bytes(source);
  return absl::IsNotFound(bytes.status()) ? bytes : bytes.value_or(0);
}

absl::Status HostedExperts::PlanOne(const LayerExperts& wanted, const Layers& held,
                                    std::vector<Item>* items) const {
  const MoeLayerDescription* layer = checkpoint_->model().FindLayer(wanted.layer);
  RETURN_IF_ERROR(CheckExperts(layer, wanted));
  const auto found = held.find(wanted.layer);
  for (const uint32_t expert : wanted.experts) {
    RETURN_IF_ERROR(CheckSlice(*layer, expert, wanted.slice));
    const HostedExpert* present =
        found == held.end() ? nullptr : found->second->experts[expert].get();
    if (present == nullptr) {
      const ExpertSource source = {layer, expert, wanted.slice};
      ASSIGN_OR_RETURN(const uint64_t bytes, BytesToReserve(source));
      items->push_back({source, bytes, nullptr});
    } else if (present->slice() != wanted.slice) {
      return absl::FailedPreconditionError(
          absl::StrCat("layer ", wanted.layer, " expert ", expert, " is held as slice ",
                       present->slice().index, " of ", present->slice().count, ", not ",
                       wanted.slice.index, " of ", wanted.slice.count, "; unload it first"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<HostedExperts::Item>> HostedExperts::Plan(
    absl::Span<const LayerExperts> request) const {
  const std::shared_ptr<const Layers> held = layers();
  std::vector<Item> items;
  for (const LayerExperts& wanted : request) {
    RETURN_IF_ERROR(PlanOne(wanted, *held, &items));
  }
  const auto key = [](const Item& item) {
    return std::make_pair(item.source.layer->layer, item.source.expert);
  };
  std::sort(items.begin(), items.end(),
            [&key](const Item& a, const Item& b) { return key(a) < key(b); });
  for (size_t i = 1; i < items.size(); ++i) {
    const ExpertSource& source = items[i].source;
    if (key(items[i - 1]) == key(items[i]) && items[i - 1].source.slice != source.slice) {
      return absl::InvalidArgumentError(absl::StrCat("layer ", source.layer->layer, " expert ",
                                                     source.expert,
                                                     " is asked for as two slices; ask for one"));
    }
  }
  items.erase(std::unique(items.begin(), items.end(),
                          [&key](const Item& a, const Item& b) { return key(a) == key(b); }),
              items.end());
  RETURN_IF_ERROR(CheckLayersFit(items, *held));
  return items;
}

absl::Status HostedExperts::CheckLayersFit(absl::Span<const Item> items, const Layers& held) const {
  if (options_.resident == nullptr) {
    return absl::OkStatus();
  }
  std::map<uint32_t, uint64_t> bytes;
  for (const auto& [layer, hosted] : held) {
    for (const auto& expert : hosted->experts) {
      bytes[layer] += expert == nullptr ? 0 : expert->bytes();
    }
  }
  for (const Item& item : items) {
    bytes[item.source.layer->layer] += item.reserved_bytes;
  }
  for (const auto& [layer, all] : bytes) {
    if (all > options_.resident->limit_bytes()) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "layer ", layer, " takes ", all, " bytes, and all of it may be needed at once, but ",
          "--memory (of a GPU: --device-memory) is ", options_.resident->limit_bytes(),
          "; allow more, or host fewer experts of the layer on this node"));
    }
  }
  return absl::OkStatus();
}

uint64_t HostedExperts::ReservedBytes(absl::Span<const Item> items) {
  uint64_t bytes = 0;
  for (const Item& item : items) {
    bytes += item.reserved_bytes;
  }
  return bytes;
}

absl::Status HostedExperts::CheckLoad(absl::Span<const LayerExperts> request) const {
  ASSIGN_OR_RETURN(const std::vector<Item> items, Plan(request));
  const uint64_t bytes = ReservedBytes(items);
  RETURN_IF_ERROR(ledger_->Reserve(bytes));
  ledger_->Unreserve(bytes);
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> HostedExperts::Load(absl::Span<const LayerExperts> request,
                                             Publish publish, const Progress& progress,
                                             const Permit& permit) {
  const ExclusiveChange turn(this);
  if (permit) {
    RETURN_IF_ERROR(permit());
  }
  ASSIGN_OR_RETURN(std::vector<Item> items, Plan(request));
  RETURN_IF_ERROR(ledger_->Reserve(ReservedBytes(items)));

  uint64_t done = 0;  // PackAll calls one_done for one thread at a time.
  const auto one_done = [&] {
    ++done;
    if (progress) {
      progress(done, items.size());
    }
  };
  absl::Status status;
  for (size_t begin = 0; begin < items.size() && status.ok();) {
    size_t end = items.size();
    if (publish == Publish::kPerLayer) {
      end = begin + 1;
      while (end < items.size() && items[end].source.layer == items[begin].source.layer) {
        ++end;
      }
    }
    const absl::Span<Item> group = absl::MakeSpan(items).subspan(begin, end - begin);
    status = PackAll(group, publish, one_done);
    if (status.ok()) {
      PublishItems(group);
      begin = end;
    }
  }
  for (const Item& item : items) {
    if (item.loaded == nullptr) {
      ledger_->Unreserve(item.reserved_bytes);
    }
  }
  RETURN_IF_ERROR(status);
  return items.size();
}

absl::Status HostedExperts::PackOne(Item* item) {
  if (stopping_.load(std::memory_order_relaxed)) {
    return absl::CancelledError("the node is stopping");
  }
  const ExpertSource& source = item->source;
  ResidentExperts* const resident = options_.resident;
  const bool pack = resident == nullptr || resident->KeepRoom(source, item->reserved_bytes);
  const absl::Status status = ReadOne(item, pack);
  if (resident != nullptr && pack && !status.ok()) {
    resident->GiveBackRoom(source, item->reserved_bytes);
  }
  return status;
}

absl::Status HostedExperts::ReadOne(Item* item, bool pack) {
  ASSIGN_OR_RETURN(ExpertPacker::Packed read, packer_.Read(item->source, pack));
  HostedExpert::Parts parts = {ledger_, 0, item->source, read.bytes, read.digest};
  RETURN_IF_ERROR(ledger_->AddEntry(item->reserved_bytes, {read.bytes, read.checkpoint_bytes},
                                    &parts.ledger_id));
  ResidentExperts* const resident = options_.resident;
  if (resident == nullptr) {
    item->loaded = std::make_shared<const HostedExpert>(std::move(parts), std::move(read.expert));
    return absl::OkStatus();
  }
  parts.on_gone = [resident](const HostedExpert* expert) { resident->Forget(expert); };
  item->loaded = std::make_shared<const HostedExpert>(std::move(parts), nullptr);
  resident->Host(item->loaded.get(), std::move(read.expert));
  return absl::OkStatus();
}

absl::Status HostedExperts::PackGently(Item* item) {
  RestUntil(rests_until_);
  // What it waited for a CPU, or for a disk, took nothing from those that serve.
  const absl::Duration begin = options_.cpu_time();
  const absl::Status status = PackOne(item);
  rests_until_ =
      options_.clock->Now() + RestAfter(options_.cpu_time() - begin, options_.load_threads);
  return status;
}

absl::Status HostedExperts::PackAll(absl::Span<Item> items, Publish publish,
                                    const std::function<void()>& one_done) {
  absl::Mutex mutex;
  absl::Status first_error;  // Guarded by `mutex`, like the calls of one_done.
  std::atomic<size_t> next{0};
  std::atomic<bool> failed{false};
  const bool gently = publish == Publish::kTogether;
  const auto work = [&] {
    for (size_t i = next++; i < items.size() && !failed; i = next++) {
      const absl::Status status = gently ? PackGently(&items[i]) : PackOne(&items[i]);
      const absl::MutexLock lock(&mutex);
      if (status.ok()) {
        one_done();
      } else if (!failed.exchange(true)) {
        first_error = WithContext(absl::StrCat("loading layer ", items[i].source.layer->layer,
                                               " expert ", items[i].source.expert),
                                  status);
      }
    }
  };
  std::vector<std::thread> threads;
  if (gently) {
    threads.emplace_back([&work] {
      LetOtherThreadsGoFirst();
      work();
    });
  } else {
    const size_t all = std::min<size_t>(options_.load_threads, items.size());
    for (size_t i = 1; i < all; ++i) {
      threads.emplace_back(work);
    }
    work();
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  const absl::MutexLock lock(&mutex);
  return first_error;
}

void HostedExperts::Stop() {
  absl::MutexLock lock(&mutex_);
  stopping_.store(true, std::memory_order_relaxed);
  stopped_.SignalAll();
}

void HostedExperts::RestUntil(absl::Time until) {
  absl::MutexLock lock(&mutex_);
  while (!stopping_.load(std::memory_order_relaxed) && options_.clock->Now() < until) {
    options_.clock->WaitUntil(&mutex_, &stopped_, until);
  }
}

void HostedExperts::PublishItems(absl::Span<const Item> items) {
  if (items.empty()) {
    return;
  }
  auto changed = std::make_shared<Layers>(*layers());
  for (size_t begin = 0; begin < items.size();) {
    const MoeLayerDescription* description = items[begin].source.layer;
    std::shared_ptr<const HostedLayer>& slot = (*changed)[description->layer];
    auto layer =
        slot == nullptr ? std::make_shared<HostedLayer>() : std::make_shared<HostedLayer>(*slot);
    layer->description = description;
    layer->experts.resize(description->hostable_experts());
    for (; begin < items.size() && items[begin].source.layer == description; ++begin) {
      layer->experts[items[begin].source.expert] = items[begin].loaded;
    }
    slot = std::move(layer);
  }
  SetLayers(std::move(changed));
}

absl::StatusOr<uint64_t> HostedExperts::Unload(absl::Span<const LayerExperts> request,
                                               const Permit& permit) {
  std::vector<uint64_t> leaving;
  {
    const ExclusiveChange turn(this);
    if (permit) {
      RETURN_IF_ERROR(permit());
    }
    auto changed = std::make_shared<Layers>(*layers());
    for (const LayerExperts& wanted : request) {
      RETURN_IF_ERROR(CheckExperts(checkpoint_->model().FindLayer(wanted.layer), wanted));
      const auto found = changed->find(wanted.layer);
      if (found == changed->end()) {
        continue;
      }
      auto layer = std::make_shared<HostedLayer>(*found->second);
      for (const uint32_t expert : wanted.experts) {
        if (layer->experts[expert] != nullptr) {
          leaving.push_back(layer->experts[expert]->ledger_id());
          layer->experts[expert] = nullptr;
        }
      }
      if (std::all_of(layer->experts.begin(), layer->experts.end(),
                      [](const auto& expert) { return expert == nullptr; })) {
        changed->erase(found);
      } else {
        found->second = std::move(layer);
      }
    }
    if (!leaving.empty()) {
      SetLayers(std::move(changed));
    }
  }
  // Without the turn: batches may take a while, and others may load meanwhile.
  ledger_->AwaitRemoved(leaving);
  return leaving.size();
}

std::shared_ptr<const HostedExperts::Layers> HostedExperts::layers() const {
  absl::MutexLock lock(&mutex_);
  return layers_;
}

void HostedExperts::SetLayers(std::shared_ptr<const Layers> layers) {
  {
    absl::MutexLock lock(&mutex_);
    layers_.swap(layers);
  }
  layers.reset();  // Frees what no batch uses any more, outside the lock.
  on_change_();
}

std::shared_ptr<const HostedLayer> HostedExperts::FindLayer(uint32_t layer) const {
  const std::shared_ptr<const Layers> held = layers();
  const auto found = held->find(layer);
  return found == held->end() ? nullptr : found->second;
}

std::vector<v1::HostedExperts> HostedExperts::Describe() const {
  const std::shared_ptr<const Layers> held = layers();
  std::vector<v1::HostedExperts> described;
  for (const MoeLayerDescription& description : checkpoint_->model().layers) {
    const auto found = held->find(description.layer);
    if (found == held->end()) {
      continue;
    }
    std::map<std::pair<uint32_t, uint32_t>, v1::HostedExperts> by_slice;
    for (uint32_t expert = 0; expert < found->second->experts.size(); ++expert) {
      const HostedExpert* hosted = found->second->experts[expert].get();
      if (hosted == nullptr) {
        continue;
      }
      const IntermediateSlice slice = hosted->slice();
      v1::HostedExperts& entry = by_slice[{slice.count, slice.index}];
      entry.set_layer(description.layer);
      entry.set_slice_index(slice.index);
      entry.set_slice_count(slice.count);
      entry.add_experts(expert);
      entry.add_digests(hosted->digest());
    }
    for (auto& [slice, entry] : by_slice) {
      described.push_back(std::move(entry));
    }
  }
  return described;
}

}  // namespace expertmesh::node
