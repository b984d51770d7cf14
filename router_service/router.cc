#include "router_service/router.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/check.h"
#include "common/base/process.h"
#include "common/base/status_macros.h"
#include "common/model/routing_json.h"
#include "common/wire/extensions.h"

namespace expertmesh::router {

Router::Router(const RouterOptions& options,
               std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint,
               std::unique_ptr<experts::Backend> backend, Clock* clock,
               prometheus::Registry* registry)
    : options_(options),
      checkpoint_(std::move(checkpoint)),
      backend_(std::move(backend)),
      clock_(clock),
      metrics_(*registry) {}

absl::StatusOr<std::unique_ptr<Router>> Router::Create(
    const RouterOptions& options, std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint,
    std::unique_ptr<experts::Backend> backend, Transport* transport, Clock* clock,
    prometheus::Registry* registry) {
  if (options.batcher.max_batch_tokens == 0 || options.max_attempts == 0 ||
      options.batcher.max_queue_tokens < options.batcher.max_batch_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_batch_tokens (", options.batcher.max_batch_tokens, ") and max_attempts (",
                     options.max_attempts, ") must be at least 1, and max_queue_tokens (",
                     options.batcher.max_queue_tokens, ") at least max_batch_tokens"));
  }
  auto router = std::unique_ptr<Router>(
      new Router(options, std::move(checkpoint), std::move(backend), clock, registry));
  ASSIGN_OR_RETURN(mesh::WireEncodings encodings,
                   mesh::WireEncodings::Parse(options.wire_hidden_states, options.wire_partials,
                                              router->backend_->compute_dtype()));
  if (options.frame_checksums) {
    encodings.AddChecksums();
  }
  RETURN_IF_ERROR(router->LoadLayers());
  router->StartFleet(transport, std::move(encodings));
  return router;
}

absl::StatusOr<RoutingOptions> Router::RoutingOf(const MoeLayerDescription& layer) const {
  if (options_.routing.empty()) {
    return layer.routing;
  }
  absl::StatusOr<RoutingOptions> routing = WithRoutingJson(layer.routing, options_.routing);
  const absl::Status status = routing.ok() ? gate::ValidateRouting(*routing) : routing.status();
  if (!status.ok()) {
    return absl::Status(status.code(), absl::StrCat("--routing cannot be used for layer ",
                                                    layer.layer, ": ", status.message()));
  }
  return routing;
}

absl::Status Router::LoadLayers() {
  for (const MoeLayerDescription& description : checkpoint_->model().layers) {
    batch::LayerRuntime& layer = layers_[description.layer].runtime;
    layer.description = description;
    ASSIGN_OR_RETURN(layer.description.routing, RoutingOf(description));
    layer.load = std::make_unique<batch::LayerLoadCounters>(description.routing.num_experts);
    ASSIGN_OR_RETURN(const GateWeights gate, checkpoint_->Gate(description.layer));
    absl::StatusOr<std::unique_ptr<const gate::Gate>> made = gate::Gate::Create(
        gate, layer.description.routing, backend_->compute_dtype(), options_.tie_order);
    if (!made.ok()) {
      return absl::Status(made.status().code(),
                          absl::StrCat("layer ", description.layer, ": ", made.status().message()));
    }
    layer.gate = *std::move(made);
    RETURN_IF_ERROR(LoadShared(gate, &layer));
  }
  return absl::OkStatus();
}

absl::Status Router::LoadShared(const GateWeights& gate, batch::LayerRuntime* layer) const {
  const MoeLayerDescription& description = layer->description;
  if (description.shared_intermediate_size == 0) {
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const ExpertWeights weights, checkpoint_->Shared(description.layer));
  // A plain gated unit, whatever the routed experts are.
  ExpertOptions shared;
  shared.d_model = description.expert.d_model;
  shared.intermediate_size = description.shared_intermediate_size;
  ASSIGN_OR_RETURN(layer->shared_expert, backend_->Pack(shared, weights, IntermediateSlice()));
  if (description.shared_gate) {
    ASSIGN_OR_RETURN(layer->shared_gate, gate::SharedGate::Create(gate.shared_gate, shared.d_model,
                                                                  backend_->compute_dtype()));
  }
  return absl::OkStatus();
}

void Router::StartFleet(Transport* transport, mesh::WireEncodings encodings) {
  pool_ = std::make_unique<ThreadPool>(options_.threads > 0 ? options_.threads : AvailableCores());
  timers_ = std::make_unique<TimerQueue>(clock_);
  fleet_ = std::make_unique<mesh::Fleet>(checkpoint_, std::move(encodings),
                                         options_.verify_bytes_per_second, &metrics_, transport,
                                         timers_.get(), clock_);
  cross_checker_ = std::make_unique<mesh::CrossChecker>(options_.cross_check_interval, fleet_.get(),
                                                        &metrics_, clock_);
  environment_.fleet = fleet_.get();
  environment_.cross_checker = cross_checker_.get();
  environment_.pool = pool_.get();
  environment_.clock = clock_;
  environment_.backend = backend_.get();
  environment_.metrics = &metrics_;
  environment_.node_plans = &node_plans_;
  environment_.parts = &parts_;
  environment_.buffers = &buffers_;
  environment_.d_model = checkpoint_->model().d_model;
  environment_.activation_dtype = backend_->compute_dtype();
  environment_.max_frame_bytes = options_.max_frame_bytes;
  environment_.max_attempts = options_.max_attempts;
  environment_.inline_tokens = options_.inline_tokens;
  environment_.strict = options_.strict;
  environment_.on_finished = [this](const batch::LayerRuntime* layer, uint64_t tokens,
                                    absl::Time closed_at) {
    OnBatchFinished(layer, tokens, closed_at);
  };
  for (auto& [index, layer] : layers_) {
    layer.batcher = std::make_unique<batch::LayerBatcher>(
        options_.batcher, clock_, timers_.get(),
        [this, target = &layer](std::vector<batch::ForwardJobPtr>&& jobs) {
          RunBatch(target, &jobs);
        });
  }
  UpdateFleetMetrics();
  fleet_subscription_ = fleet_->Subscribe([this] { UpdateFleetMetrics(); });
}

Router::~Router() {
  if (fleet_ == nullptr) {  // Create failed half-way.
    return;
  }
  Drain(absl::ZeroDuration());
  for (auto& [index, layer] : layers_) {
    layer.batcher->Stop();
  }
  fleet_->Unsubscribe(fleet_subscription_);
  // Every batch in flight is lost now, finds no other node, and ends.
  fleet_->Close();
  Drain(absl::InfiniteDuration());
  for (auto& [index, layer] : layers_) {
    layer.batcher.reset();
  }
}

bool Router::Drain(absl::Duration timeout) {
  const absl::Time deadline = clock_->Now() + timeout;
  absl::MutexLock lock(&mutex_);
  draining_ = true;
  while (runs_in_flight_ > 0 || jobs_in_flight_ > 0) {
    if (clock_->WaitUntil(&mutex_, &idle_, deadline)) {
      return runs_in_flight_ == 0 && jobs_in_flight_ == 0;
    }
  }
  return true;
}

void Router::Forward(const Frame& request, absl::Time rpc_deadline, batch::Respond respond) {
  const absl::Time arrival = clock_->Now();
  const batch::ForwardJobPtr job = jobs_.Take();
  const absl::Status accepted = Accept(request, arrival, rpc_deadline, job.get(), &respond);
  if (!accepted.ok()) {
    metrics_.CountRequest(accepted.code());
    v1::ForwardResponse response;
    response.set_request_id(job->request().request_id());
    response.mutable_status()->set_code(static_cast<int>(accepted.code()));
    response.mutable_status()->set_message(std::string(accepted.message()));
    respond(response, std::nullopt);
    return;
  }
  if (job->rows() == 0) {
    AnswerNothing(job.get());
    return;
  }
  batch::ForwardJob::StartDeadlineTimer(job);
  const absl::Status queued = layers_.at(job->request().layer()).batcher->Add(job);
  if (!queued.ok()) {
    job->Fail(queued);
  }
}

void Router::AnswerNothing(batch::ForwardJob* job) {
  v1::ForwardResponse response;
  response.mutable_status();
  response.set_epoch(fleet_->placement()->epoch());
  if (job->request().return_routing()) {
    const RoutingOptions& routing = layers_.at(job->request().layer()).runtime.description.routing;
    response.mutable_routing()->set_experts_per_token(
        routing.choice == Choice::kExpertChoice ? 0 : routing.top_k);
  }
  job->Answer(&response, TensorFrame{job->output_dtype(), 0, environment_.d_model, {}});
}

absl::Status Router::Validate(const TensorMessage<v1::ForwardRequest>& request) const {
  if (!layers_.contains(request.message.layer())) {
    std::vector<uint32_t> known;
    for (const auto& [index, layer] : layers_) {
      known.push_back(index);
    }
    return absl::InvalidArgumentError(absl::StrCat("layer is ", request.message.layer(),
                                                   "; this model's MoE layers are ",
                                                   absl::StrJoin(known, ", ")));
  }
  RETURN_IF_ERROR(RefuseExtensions(request.message.extensions()));
  if (!request.has_tensor) {
    return absl::InvalidArgumentError("hidden_states is missing; send a [tokens, d_model] tensor");
  }
  if (request.tensor.cols != environment_.d_model) {
    return absl::InvalidArgumentError(
        absl::StrCat("hidden_states.shape is [", request.tensor.rows, ", ", request.tensor.cols,
                     "]; d_model of this model is ", environment_.d_model));
  }
  if (request.tensor.rows > options_.max_tokens_in_flight) {
    return absl::InvalidArgumentError(absl::StrCat("hidden_states.shape has ", request.tensor.rows,
                                                   " tokens; send at most ",
                                                   options_.max_tokens_in_flight, " at once"));
  }
  const RoutingOptions& routing = layers_.at(request.message.layer()).runtime.description.routing;
  return gate::CheckRequestTokens(
      routing, batch::TokensOf(request.message, request.tensor.rows, routing.seed));
}

absl::Status Router::Accept(const Frame& frame, absl::Time arrival, absl::Time rpc_deadline,
                            batch::ForwardJob* job, batch::Respond* respond) {
  TensorMessage<v1::ForwardRequest>& request = *job->received();
  if (absl::Status malformed = DecodeTensorMessage(frame, &request); !malformed.ok()) {
    request.message.clear_request_id();  // What was read of it means nothing.
    return malformed;
  }
  RETURN_IF_ERROR(request.tensor_status);
  RETURN_IF_ERROR(Validate(request));
  DType output_dtype = request.tensor.dtype;
  if (request.message.output_dtype() != v1::DTYPE_UNSPECIFIED) {
    ASSIGN_OR_RETURN(output_dtype, FromWire(request.message.output_dtype(), "output_dtype"));
  }
  absl::Time deadline = std::min(rpc_deadline, arrival + options_.max_request_time);
  if (request.message.has_timeout_us()) {
    deadline = std::min(deadline, arrival + absl::Microseconds(request.message.timeout_us()));
  }
  if (deadline <= arrival) {
    return absl::DeadlineExceededError("the deadline had passed when the request arrived");
  }
  RETURN_IF_ERROR(Admit(request.tensor.rows));
  job->Accept(output_dtype, arrival, deadline, timers_.get(), this, std::move(*respond));
  return absl::OkStatus();
}

absl::Status Router::Admit(uint64_t rows) {
  absl::MutexLock lock(&mutex_);
  if (draining_) {
    return absl::UnavailableError("this router is stopping; send to another, or retry later");
  }
  if (tokens_in_flight_ + rows > options_.max_tokens_in_flight) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the router holds ", tokens_in_flight_, " tokens of at most ",
                     options_.max_tokens_in_flight, "; retry later"));
  }
  tokens_in_flight_ += rows;
  ++jobs_in_flight_;
  metrics_.tokens.Increment(static_cast<double>(rows));
  metrics_.tokens_in_flight.Set(static_cast<double>(tokens_in_flight_));
  return absl::OkStatus();
}

void Router::OnAnswer(const batch::ForwardJob& job, absl::StatusCode code) {
  metrics_.CountRequest(code);
  metrics_.request_seconds.Observe(absl::ToDoubleSeconds(clock_->Now() - job.arrival()));
  // Before answering: who has its answer may send as much again at once.
  absl::MutexLock lock(&mutex_);
  tokens_in_flight_ -= job.rows();
  metrics_.tokens_in_flight.Set(static_cast<double>(tokens_in_flight_));
}

void Router::OnAnswered() {
  absl::MutexLock lock(&mutex_);
  --jobs_in_flight_;
  if (jobs_in_flight_ == 0) {
    idle_.SignalAll();
  }
}

void Router::RunBatch(Layer* layer, std::vector<batch::ForwardJobPtr>* jobs) {
  {
    absl::MutexLock lock(&mutex_);
    ++runs_in_flight_;
  }
  batch::BatchRun::Run(runs_.Take(), &environment_, &layer->runtime, jobs);
}

void Router::OnBatchFinished(const batch::LayerRuntime* layer, uint64_t tokens,
                             absl::Time closed_at) {
  layers_.at(layer->description.layer).batcher->BatchDone(tokens, clock_->Now() - closed_at);
  absl::MutexLock lock(&mutex_);
  if (--runs_in_flight_ == 0) {
    idle_.SignalAll();
  }
}

v1::DescribeModelResponse Router::DescribeModel() const {
  const ModelDescription& model = checkpoint_->model();
  v1::DescribeModelResponse response;
  response.set_family(model.family);
  response.set_fingerprint(checkpoint_->fingerprint());
  response.set_d_model(model.d_model);
  response.set_activation_dtype(ToWire(environment_.activation_dtype));
  response.set_max_message_bytes(options_.max_message_bytes);
  response.set_strict(options_.strict);
  for (const auto& [index, loaded] : layers_) {
    const MoeLayerDescription& description = loaded.runtime.description;
    v1::MoeLayer& layer = *response.add_layers();
    layer.set_layer(description.layer);
    layer.set_num_experts(description.routing.num_experts);
    layer.set_experts_per_token(description.routing.top_k);
    layer.set_intermediate_size(description.expert.intermediate_size);
    layer.set_shared_intermediate_size(description.shared_intermediate_size);
    layer.set_routing(RoutingJson(description.routing));
  }
  return response;
}

v1::GetLoadResponse Router::GetLoad() const {
  v1::GetLoadResponse response;
  response.set_epoch(fleet_->placement()->epoch());
  for (const auto& [index, layer] : layers_) {
    v1::LayerLoad& load = *response.add_layers();
    load.set_layer(index);
    load.set_tokens(layer.runtime.load->tokens.load(std::memory_order_relaxed));
    for (const std::atomic<uint64_t>& assignments : layer.runtime.load->assignments) {
      load.add_assignments(assignments.load(std::memory_order_relaxed));
    }
  }
  return response;
}

void Router::UpdateFleetMetrics() {
  const v1::GetTopologyResponse topology = fleet_->Topology();
  metrics_.epoch.Set(static_cast<double>(topology.epoch()));
  double missing = 0;
  for (const v1::MissingExperts& layer : topology.missing()) {
    missing += layer.experts_size();
  }
  metrics_.missing_experts.Set(missing);
  std::map<v1::NodeLink, int> states = {{v1::NODE_LINK_UP, 0},
                                        {v1::NODE_LINK_DOWN, 0},
                                        {v1::NODE_LINK_REFUSED, 0},
                                        {v1::NODE_LINK_DRAINING, 0}};
  for (const v1::TopologyNode& node : topology.nodes()) {
    ++states[node.link()];
  }
  for (const auto& [state, count] : states) {
    std::string name = v1::NodeLink_Name(state).substr(sizeof("NODE_LINK_") - 1);
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return std::tolower(c); });
    metrics_.nodes.Add({{"state", name}}).Set(count);
  }
}

}  // namespace expertmesh::router
