#include "expert_service/node.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "common/base/process.h"
#include "common/base/status_macros.h"
#include "common/wire/error_reason.h"
#include "common/wire/message_codec.h"
#include "common/wire/wire_dtype.h"

namespace expertmesh::node {
namespace {

absl::Status DeviceLostError() {
  return absl::UnavailableError("this node has lost its device; ask another one");
}

// One stream of a router.
class ComputeHandler final : public StreamHandler {
 public:
  ComputeHandler(Executor* executor, const std::atomic<bool>* device_lost,
                 const ReplySender* reply_sender, BatchAssembler assembler,
                 std::shared_ptr<FrameSink> replies)
      : executor_(executor),
        device_lost_(device_lost),
        reply_sender_(reply_sender),
        assembler_(std::move(assembler)),
        replies_(std::move(replies)),
        stream_(executor_->OpenStream(replies_)) {}

  ~ComputeHandler() override { executor_->CloseStream(stream_); }

  void OnFrame(Frame frame) override {
    BatchAssembler::Outcome outcome = assembler_.Add(frame);
    absl::Status status = outcome.status;
    if (outcome.batch != nullptr) {
      status =
          *device_lost_ ? DeviceLostError() : executor_->Enqueue(stream_, std::move(outcome.batch));
    }
    if (!status.ok()) {
      reply_sender_->SendError(*replies_, outcome.batch_id, status);
    }
  }

 private:
  Executor* const executor_;
  const std::atomic<bool>* const device_lost_;
  const ReplySender* const reply_sender_;
  BatchAssembler assembler_;
  const std::shared_ptr<FrameSink> replies_;
  const StreamId stream_;
};

std::vector<LayerExperts> FromProto(
    const google::protobuf::RepeatedPtrField<v1::HostedExperts>& entries) {
  std::vector<LayerExperts> result;
  for (const v1::HostedExperts& entry : entries) {
    LayerExperts experts;
    experts.layer = entry.layer();
    experts.experts.assign(entry.experts().begin(), entry.experts().end());
    std::sort(experts.experts.begin(), experts.experts.end());
    experts.experts.erase(std::unique(experts.experts.begin(), experts.experts.end()),
                          experts.experts.end());
    // Both left out: the whole expert.
    const bool whole = entry.slice_index() == 0 && entry.slice_count() == 0;
    experts.slice = {entry.slice_index(), whole ? 1 : entry.slice_count()};
    result.push_back(std::move(experts));
  }
  return result;
}

// Tells this start of a node from any other.
std::string MakeInstanceId() {
  absl::BitGen random;
  return absl::StrCat(absl::Hex(absl::Uniform<uint64_t>(random), absl::kZeroPad16));
}

uint64_t BytesOfRows(uint64_t rows, const ModelDescription& model) {
  return rows * model.d_model * sizeof(float);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Node>> Node::Create(
    const NodeOptions& options, std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint,
    experts::Backend* backend, Clock* clock, std::shared_ptr<prometheus::Registry> registry) {
  if (options.node_id.empty()) {
    return absl::InvalidArgumentError("node_id is empty; give a stable name");
  }
  if (options.max_batch_rows < 1) {
    return absl::InvalidArgumentError("max_batch_rows is 0; must be at least 1");
  }
  if (options.max_queue_rows < options.max_batch_rows) {
    return absl::InvalidArgumentError(absl::StrCat("max_queue_rows is ", options.max_queue_rows,
                                                   "; must be at least max_batch_rows, ",
                                                   options.max_batch_rows));
  }
  if (options.load_threads < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("load_threads is ", options.load_threads, "; must be at least 1"));
  }
  // Its series are there, with 0, where all is in memory, too.
  auto cache_metrics = std::make_shared<CacheMetrics>(*registry, options.memory_bytes);
  std::unique_ptr<ResidentExperts> resident;
  if (options.memory_bytes > 0) {
    ASSIGN_OR_RETURN(resident,
                     ResidentExperts::Create(
                         {options.memory_bytes, options.memory_policy, options.load_threads, clock},
                         checkpoint->model(), ExpertPacker(checkpoint, backend, /*releases=*/true),
                         std::move(cache_metrics)));
  }
  return std::unique_ptr<Node>(new Node(options, std::move(checkpoint), backend, clock,
                                        std::move(registry), std::move(resident)));
}

Node::Node(const NodeOptions& options, std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint,
           experts::Backend* backend, Clock* clock, std::shared_ptr<prometheus::Registry> registry,
           std::unique_ptr<ResidentExperts> resident)
    : options_(options),
      instance_id_(MakeInstanceId()),
      checkpoint_(std::move(checkpoint)),
      backend_(backend),
      clock_(clock),
      metrics_(std::move(registry), options.expert_metrics, clock),
      reply_sender_(options.reply_frame_bytes, &metrics_),
      resident_(std::move(resident)),
      hosted_(checkpoint_, backend,
              {options.memory_limit_bytes, options.load_threads, clock, options.cpu_time,
               resident_.get()},
              [this] { OnHostedChange(); }),
      executor_(MakeExecutorOptions(), backend, clock, &reply_sender_, &metrics_, resident_.get()) {
}

Node::~Node() {
  hosted_.Stop();
  if (resident_ != nullptr) {
    resident_->Stop();
  }
  executor_.Stop();
}

AssemblyLimits Node::MakeAssemblyLimits() const {
  AssemblyLimits limits;
  limits.max_batch_rows = options_.max_batch_rows;
  limits.max_frame_bytes = options_.max_frame_bytes;
  limits.max_open_bytes = options_.max_open_bytes;
  if (limits.max_open_bytes == 0) {
    limits.max_open_bytes =
        2 * (BytesOfRows(options_.max_batch_rows, checkpoint_->model()) + options_.max_frame_bytes);
  }
  return limits;
}

ExecutorOptions Node::MakeExecutorOptions() const {
  ExecutorOptions options;
  options.queue.max_group_rows = options_.max_batch_rows;
  options.queue.max_queue_rows = options_.max_queue_rows;
  options.queue.max_queue_bytes = options_.max_queue_bytes;
  if (options.queue.max_queue_bytes == 0) {
    options.queue.max_queue_bytes =
        2 * (BytesOfRows(options_.max_queue_rows, checkpoint_->model()) + options_.max_frame_bytes);
  }
  options.inline_parameters = options_.inline_parameters;
  return options;
}

absl::Status Node::CheckLoad(absl::Span<const LayerExperts> selection) const {
  return hosted_.CheckLoad(selection);
}

absl::Status Node::Load(absl::Span<const LayerExperts> selection,
                        const HostedExperts::Progress& progress) {
  for (const LayerExperts& layer : selection) {
    metrics_.AddExpertSeries(layer.layer, layer.experts);
  }
  const absl::Time begin = clock_->Now();
  const absl::Status status =
      hosted_.Load(selection, HostedExperts::Publish::kPerLayer, progress).status();
  if (status.ok()) {
    metrics_.RecordLoad(clock_->Now() - begin);
    SetState(v1::NODE_STATE_READY, "");
  } else {
    SetState(v1::NODE_STATE_FAILED, std::string(status.message()));
  }
  return status;
}

bool Node::Drain(absl::Duration linger, absl::Time deadline) {
  const absl::Time until = std::min(clock_->Now() + linger, deadline);
  hosted_.Stop();
  SetState(v1::NODE_STATE_DRAINING, "");
  {
    const absl::MutexLock lock(&mutex_);
    while (!clock_->WaitUntil(&mutex_, &linger_, until)) {
    }
  }
  const bool idle = executor_.AwaitIdle(deadline);
  executor_.Stop();
  return idle;
}

void Node::SetState(v1::NodeState state, std::string message) {
  {
    const absl::MutexLock lock(&mutex_);
    if (device_lost_ || state_ == v1::NODE_STATE_DRAINING || state_ == state) {
      return;
    }
    state_ = state;
    message_ = std::move(message);
    ++version_;
  }
  metrics_.SetState(state);
  notifier_.Notify();
}

void Node::LoseDevice(const absl::Status& why) {
  {
    const absl::MutexLock lock(&mutex_);
    if (device_lost_.exchange(true)) {
      return;
    }
    state_ = v1::NODE_STATE_FAILED;
    message_ = std::string(why.message());
    ++version_;
  }
  metrics_.SetState(v1::NODE_STATE_FAILED);
  notifier_.Notify();
}

void Node::OnHostedChange() {
  {
    const absl::MutexLock lock(&mutex_);
    ++version_;
  }
  metrics_.SetWeightsBytes(hosted_.memory().held_bytes(), hosted_.memory().checkpoint_bytes());
  notifier_.Notify();
}

v1::MemoryUsage Node::Memory() const {
  v1::MemoryUsage memory;
  memory.set_weights_bytes(hosted_.memory().held_bytes());
  memory.set_checkpoint_bytes(hosted_.memory().checkpoint_bytes());
  memory.set_resident_bytes(ResidentBytes());
  memory.set_limit_bytes(hosted_.memory().limit_bytes());
  return memory;
}

v1::NodeDescription Node::Describe() const {
  v1::NodeDescription response;
  {
    const absl::MutexLock lock(&mutex_);
    response.set_state(state_);
    response.set_message(message_);
  }
  response.set_node_id(options_.node_id);
  response.set_version(options_.version);
  response.set_instance_id(instance_id_);
  response.set_zone(options_.zone);
  for (const auto& [key, value] : options_.resource_attributes) {
    (*response.mutable_resource_attributes())[key] = value;
  }
  response.set_family(checkpoint_->model().family);
  response.set_fingerprint(checkpoint_->fingerprint());
  response.set_outline(checkpoint_->outline());
  response.set_d_model(checkpoint_->model().d_model);
  response.set_backend(std::string(backend_->name()));
  response.set_compute_dtype(ToWire(backend_->compute_dtype()));
  if (!device_lost_) {
    for (v1::HostedExperts& hosted : hosted_.Describe()) {
      *response.add_hosted() = std::move(hosted);
    }
  }
  *response.mutable_memory() = Memory();
  response.set_max_batch_rows(options_.max_batch_rows);
  response.set_max_frame_bytes(options_.max_frame_bytes);
  return response;
}

internal::v1::WatchStatusResponse Node::Status() const {
  internal::v1::WatchStatusResponse status;
  {
    // Before the description: that may be newer than its version, never older.
    const absl::MutexLock lock(&mutex_);
    status.set_version(version_);
  }
  *status.mutable_description() = Describe();
  status.set_state(status.description().state());
  const Executor::Load load = executor_.load();
  status.set_batches_in_flight(load.batches);
  status.set_rows_in_flight(load.rows);
  return status;
}

std::unique_ptr<StatusSubscription> Node::Subscribe(std::function<void()> on_change) {
  return notifier_.Subscribe(std::move(on_change));
}

std::unique_ptr<StreamHandler> Node::OpenCompute(std::shared_ptr<FrameSink> replies) {
  return std::make_unique<ComputeHandler>(
      &executor_, &device_lost_, &reply_sender_,
      BatchAssembler(MakeAssemblyLimits(), &checkpoint_->model(), &hosted_, clock_),
      std::move(replies));
}

absl::Status Node::CheckTerm(uint64_t term) {
  const absl::MutexLock lock(&mutex_);
  if (term == 0 || term >= highest_term_) {
    highest_term_ = std::max(highest_term_, term);
    return absl::OkStatus();
  }
  return ErrorOf(v1::ERROR_REASON_TERM_PASSED,
                 absl::StrCat("term is ", term, ", and this node has been asked in term ",
                              highest_term_, "; another authority decides by now: follow it"),
                 {{"term", absl::StrCat(term)}, {"seen", absl::StrCat(highest_term_)}});
}

absl::StatusOr<internal::v1::LoadExpertsResponse> Node::LoadExperts(
    const internal::v1::LoadExpertsRequest& request) {
  const auto permit = [this, term = request.term()] { return CheckTerm(term); };
  RETURN_IF_ERROR(permit());
  {
    const absl::MutexLock lock(&mutex_);
    if (state_ == v1::NODE_STATE_DRAINING) {
      return absl::UnavailableError("this node is draining; load the experts on another one");
    }
  }
  if (device_lost_) {
    return DeviceLostError();
  }
  const std::vector<LayerExperts> wanted = FromProto(request.experts());
  const absl::Time begin = clock_->Now();
  ASSIGN_OR_RETURN(const uint64_t loaded, hosted_.Load(wanted, HostedExperts::Publish::kTogether,
                                                       /*progress=*/nullptr, permit));
  metrics_.RecordLoad(clock_->Now() - begin);
  for (const LayerExperts& layer : wanted) {
    metrics_.AddExpertSeries(layer.layer, layer.experts);
  }
  internal::v1::LoadExpertsResponse response;
  response.set_loaded(loaded);
  *response.mutable_memory() = Memory();
  return response;
}

absl::StatusOr<internal::v1::UnloadExpertsResponse> Node::UnloadExperts(
    const internal::v1::UnloadExpertsRequest& request) {
  const auto permit = [this, term = request.term()] { return CheckTerm(term); };
  RETURN_IF_ERROR(permit());
  ASSIGN_OR_RETURN(const uint64_t unloaded, hosted_.Unload(FromProto(request.experts()), permit));
  if (unloaded > 0) {
    OnHostedChange();  // Again: now their memory is free.
  }
  internal::v1::UnloadExpertsResponse response;
  response.set_unloaded(unloaded);
  *response.mutable_memory() = Memory();
  return response;
}

}  // namespace expertmesh::node
