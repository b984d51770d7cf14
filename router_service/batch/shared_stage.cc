#include "router_service/batch/shared_stage.h"

#include <algorithm>
#include <numeric>

#include "absl/cleanup/cleanup.h"
#include "common/base/status_macros.h"
#include "common/wire/tensor_copy.h"
#include "common/wire/tensor_encode.h"

namespace expertmesh::batch {
namespace {

uint64_t Parameters(const Batch& batch) {
  return batch.layer->description.shared_expert().parameters();
}

// Nodes of the batch's view that hold the shared experts.
bool AnyHolder(const Batch& batch) {
  const std::vector<mesh::ExpertReplicas>& replicas =
      *batch.view->placement().Layer(batch.layer_index());
  return !replicas[batch.layer->description.shared_expert_id()].missing();
}

// Makes `row` of `from` what it is after its way as `wire`: rows beyond the range of that travel as
// they are.
void SendAndReceive(Dtype from, Dtype wire, size_t d_model, BufferPool* pool, void* row) {
  if (IsLossy(from, wire)) {
    RowEncoder encoder(from, 1, d_model, wire, pool);
    if (encoder.Encode(0, row)) {
      CopyRows(encoder.Finish(), from, row);
    }
  }
}

}  // namespace

std::optional<plan::SharedDemand> SharedStage::Begin(const Batch& batch) {
  const BatchEnvironment& environment = *batch.environment;
  const MoeLayerDescription& layer = batch.layer->description;
  if (batch.layer->shared == nullptr) {
    return std::nullopt;
  }
  // Nodes apply all weights of a layer in one way, and that of shared experts is the output's.
  const bool same_way = layer.routing.apply == ApplyWeight::kOutput || !layer.shared_gate;
  const bool nodes_may = environment.shared_experts != SharedExpertsAt::kRouter && same_way;
  const bool nodes_do = nodes_may && AnyHolder(batch);
  as_nodes_ = nodes_may && environment.layout->per_assignment();
  if (!nodes_do && !as_nodes_) {
    all_rows_ = true;
    AddWork(batch, batch.requests.rows());
    return std::nullopt;
  }
  weights_.resize(batch.requests.rows());
  batch.layer->shared->Weights(batch.hidden_states->data(), absl::MakeSpan(weights_));
  if (!nodes_do) {
    rows_.resize(weights_.size());
    std::iota(rows_.begin(), rows_.end(), 0);
    Keep(batch, rows_);
    return std::nullopt;
  }
  plan::SharedDemand demand;
  demand.expert = layer.shared_expert_id();
  demand.weights = weights_;
  demand.routed_parameters = layer.expert.parameters();
  demand.shared_parameters = Parameters(batch);
  if (environment.shared_experts == SharedExpertsAt::kBoth) {
    demand.work_here = environment.shared_work->load(std::memory_order_relaxed);
  }
  return demand;
}

void SharedStage::AddWork(const Batch& batch, size_t rows) {
  work_ = Parameters(batch) * rows;
  batch.environment->shared_work->fetch_add(work_, std::memory_order_relaxed);
}

void SharedStage::Keep(const Batch& batch, absl::Span<const uint32_t> rows) {
  if (rows.data() != rows_.data()) {
    rows_.assign(rows.begin(), rows.end());
  }
  if (!rows_.empty()) {
    AddWork(batch, rows_.size());
    MakeOutput(batch);
  }
}

void SharedStage::MakeOutput(const Batch& batch) {
  const BatchEnvironment& environment = *batch.environment;
  const size_t values = size_t{batch.requests.rows()} * environment.d_model;
  output_ = environment.buffers->Take(values * sizeof(float));
  if (!all_rows_) {
    std::fill_n(output_->as<float>(), values, 0.0f);
  }
}

absl::Status SharedStage::Run(const Batch& batch) {
  const BatchEnvironment& environment = *batch.environment;
  const absl::Cleanup done = [&environment, work = work_] {
    environment.shared_work->fetch_sub(work, std::memory_order_relaxed);
  };
  if (batch.requests.AllAnswered()) {
    return absl::OkStatus();
  }
  if (!all_rows_) {
    return ComputeRows(batch, rows_, &scratch_);
  }
  MakeOutput(batch);
  environment.metrics->CountSharedRows("router", batch.requests.rows());
  return batch.layer->shared->Compute(batch.hidden_states->data(), batch.requests.rows(),
                                      &scratch_.experts, output_->as<float>());
}

void SharedStage::TakeLost(const Batch& batch, std::vector<plan::Unplaced>* unplaced) {
  lost_.clear();
  std::erase_if(*unplaced, [&](const plan::Unplaced& assignment) {
    const bool shared = assignment.expert == batch.layer->description.shared_expert_id();
    if (shared) {
      lost_.push_back(assignment.row);
    }
    return shared;
  });
}

absl::Status SharedStage::RunLost(const Batch& batch) {
  if (lost_.empty() || batch.requests.AllAnswered()) {
    return absl::OkStatus();
  }
  all_lost_.insert(all_lost_.end(), lost_.begin(), lost_.end());
  std::sort(all_lost_.begin(), all_lost_.end());
  if (output_ == nullptr) {  // Run has no rows then.
    MakeOutput(batch);
  }
  return ComputeRows(batch, lost_, &lost_scratch_);
}

absl::Status SharedStage::ComputeRows(const Batch& batch, absl::Span<const uint32_t> rows,
                                      Scratch* scratch) {
  const BatchEnvironment& environment = *batch.environment;
  const size_t d_model = environment.d_model;
  environment.metrics->CountSharedRows("router", rows.size());
  const void* hidden_states = batch.hidden_states->data();
  absl::Span<const uint32_t> which = rows;
  std::shared_ptr<AlignedBuffer> received;
  if (as_nodes_ && IsLossy(environment.activation_dtype, environment.wire.hidden_states)) {
    received = Receive(batch, rows, scratch);
    hidden_states = received->data();
    which = scratch->places;
  }
  scratch->weights.resize(rows.size());
  std::transform(rows.begin(), rows.end(), scratch->weights.begin(),
                 [this](uint32_t row) { return weights_[row]; });
  const std::shared_ptr<AlignedBuffer> some =
      environment.buffers->Take(rows.size() * d_model * sizeof(float));
  float* const from = some->as<float>();
  RETURN_IF_ERROR(batch.layer->shared->ComputeRows(hidden_states, which, scratch->weights,
                                                   &scratch->experts, from));
  for (size_t i = 0; i < rows.size(); ++i) {
    if (as_nodes_) {
      SendAndReceive(Dtype::kF32, environment.wire.partials, d_model, environment.buffers,
                     from + i * d_model);
    }
    std::copy_n(from + i * d_model, d_model, output_->as<float>() + rows[i] * d_model);
  }
  return absl::OkStatus();
}

std::shared_ptr<AlignedBuffer> SharedStage::Receive(const Batch& batch,
                                                    absl::Span<const uint32_t> rows,
                                                    Scratch* scratch) {
  const BatchEnvironment& environment = *batch.environment;
  const size_t row_bytes = environment.row_bytes();
  std::shared_ptr<AlignedBuffer> received = environment.buffers->Take(rows.size() * row_bytes);
  scratch->places.resize(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    uint8_t* const row = received->data() + i * row_bytes;
    std::copy_n(batch.Row(rows[i]), row_bytes, row);
    SendAndReceive(environment.activation_dtype, environment.wire.hidden_states,
                   environment.d_model, environment.buffers, row);
    scratch->places[i] = static_cast<uint32_t>(i);
  }
  return received;
}

bool SharedStage::IsFiniteHere(const Batch& batch, uint32_t row) const {
  const size_t d_model = batch.environment->d_model;
  return std::binary_search(all_lost_.begin(), all_lost_.end(), row) &&
         !HasNonFinite(Dtype::kF32, output() + row * d_model, d_model);
}

void SharedStage::Clear() {
  all_rows_ = false;
  as_nodes_ = false;
  work_ = 0;
  rows_.clear();
  lost_.clear();
  all_lost_.clear();
  output_.reset();
}

size_t SharedStage::MemoryBytes() const {
  const auto bytes = [](const auto&... of) { return ((of.capacity() * sizeof(of[0])) + ...); };
  return bytes(weights_, rows_, lost_, all_lost_) + scratch_.MemoryBytes() +
         lost_scratch_.MemoryBytes();
}

}  // namespace expertmesh::batch
