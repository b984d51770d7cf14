#include "router_service/balance/routing_recorder.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "common/base/status_macros.h"

namespace expertmesh::balance_control {
namespace {

size_t BytesOf(const balance::RecordedBatch& batch) {
  return sizeof(batch) + batch.experts.size() * sizeof(batch.experts[0]);
}

uint32_t Micros(uint64_t micros) {
  return static_cast<uint32_t>(std::min<uint64_t>(micros, balance::kNoMicros - 1));
}

}  // namespace

absl::StatusOr<std::unique_ptr<RoutingRecorder>> RoutingRecorder::Create(
    const std::string& name, balance::RecordedModel model, uint64_t max_bytes,
    std::function<absl::Time()> calendar) {
  ASSIGN_OR_RETURN(std::unique_ptr<balance::RoutingRecordWriter> writer,
                   balance::RoutingRecordWriter::Create(name, std::move(model), max_bytes));
  return std::unique_ptr<RoutingRecorder>(
      new RoutingRecorder(std::move(writer), std::move(calendar)));
}

RoutingRecorder::RoutingRecorder(std::unique_ptr<balance::RoutingRecordWriter> writer,
                                 std::function<absl::Time()> calendar)
    : writer_(std::move(writer)), calendar_(std::move(calendar)) {
  for (const balance::RecordedLayer& layer : writer_->model().layers) {
    top_k_[layer.layer] = layer.top_k;
  }
  thread_ = std::thread([this] { Run(); });
}

RoutingRecorder::~RoutingRecorder() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

void RoutingRecorder::Add(const Batch& batch, const gate::RoutedTokens& routed) {
  const auto top_k = top_k_.find(batch.layer);
  if (top_k == top_k_.end() || routed.tokens() == 0) {
    return;
  }
  balance::RecordedBatch record;
  record.time_us = static_cast<uint64_t>(std::max<int64_t>(absl::ToUnixMicros(calendar_()), 0));
  record.epoch = batch.epoch;
  record.layer = batch.layer;
  record.tokens = static_cast<uint32_t>(routed.tokens());
  record.batch_us = Micros(
      static_cast<uint64_t>(std::max<int64_t>(absl::ToInt64Microseconds(batch.duration), 0)));
  record.node_us = Micros(batch.node_us);
  record.experts.assign(routed.tokens() * top_k->second, balance::kNoExpert);
  for (size_t token = 0; token < routed.tokens(); ++token) {
    const auto begin = routed.expert_ids.begin();
    std::copy(begin + routed.token_begin[token], begin + routed.token_begin[token + 1],
              record.experts.begin() + static_cast<ptrdiff_t>(token * top_k->second));
  }
  absl::MutexLock lock(&mutex_);
  if (waiting_bytes_ + BytesOf(record) > kMostWaiting) {
    left_out_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  waiting_bytes_ += BytesOf(record);
  waiting_.push_back(std::move(record));
}

void RoutingRecorder::Run() {
  bool failing = false;
  for (;;) {
    balance::RecordedBatch batch;
    {
      absl::MutexLock lock(&mutex_);
      const auto something = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stopping_ || !waiting_.empty();
      };
      mutex_.Await(absl::Condition(&something));
      if (waiting_.empty()) {
        return;
      }
      batch = std::move(waiting_.front());
      waiting_.pop_front();
      waiting_bytes_ -= BytesOf(batch);
    }
    const absl::Status status = writer_->Add(batch);
    (status.ok() ? recorded_ : left_out_).fetch_add(1, std::memory_order_relaxed);
    if (!status.ok() && !failing) {
      spdlog::warn("routing is not recorded: {}", std::string(status.message()));
    }
    failing = !status.ok();
  }
}

}  // namespace expertmesh::balance_control
