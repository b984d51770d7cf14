#include "router_service/router.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/process.h"
#include "common/base/status_macros.h"
#include "router_service/serve/describe.h"
#include "router_service/serve/load_metrics.h"

namespace expertmesh::router {
namespace {

// Full batches that are held however slowly tokens are served: what is on its way, and the next.
constexpr uint64_t kLeastBatches = 4;

}  // namespace

Router::Router(const RouterOptions& options,
               std::shared_ptr<const checkpoint::MoeCheckpoint> checkpoint,
               std::unique_ptr<experts::Backend> backend, Clock* clock,
               prometheus::Registry* registry)
    : options_(options),
      checkpoint_(std::move(checkpoint)),
      backend_(std::move(backend)),
      layout_(options.strict ? batch::MakeAssignmentPartials() : batch::MakeRowPartials()),
      clock_(clock),
      metrics_(*registry),
      balance_metrics_(*registry),
      admission_({.most_tokens = options.max_tokens_in_flight,
                  .least_tokens = kLeastBatches * options.batcher.max_batch_tokens,
                  .queue_time = options.max_queue_time},
                 &metrics_, options.tracer, clock) {}

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
  RETURN_IF_ERROR(router->Start(transport, std::move(encodings)));
  return router;
}

absl::Status Router::LoadLayers() {
  auto biases = std::make_shared<mesh::SelectBiases>();
  for (const MoeLayerDescription& description : checkpoint_->model().layers) {
    std::vector<float> bias;
    ASSIGN_OR_RETURN(
        layers_[description.layer].runtime,
        batch::LoadLayer(*checkpoint_, description, options_.layer, backend_.get(), &bias));
    if (!bias.empty()) {
      biases->emplace(description.layer, std::move(bias));
    }
  }
  biases_ = std::move(biases);
  return absl::OkStatus();
}

balance_control::SteeredModel Router::DescribeSteered() const {
  balance_control::SteeredModel model;
  model.outline = checkpoint_->outline();
  for (const auto& [index, layer] : layers_) {
    const auto bias = biases_->find(index);
    model.layers[index] = balance_control::MakeSteeredLayer(
        layer.runtime.description, bias == biases_->end() ? std::vector<float>() : bias->second);
  }
  return model;
}

balance_control::LoadCounts Router::ReadCounts() const {
  balance_control::LoadCounts counts;
  for (const auto& [index, layer] : layers_) {
    counts[index] = layer.runtime.load->Read();
  }
  return counts;
}

std::map<uint32_t, balance_control::LayerGauges> Router::ReadGauges() const {
  std::map<uint32_t, balance_control::LayerGauges> gauges;
  for (const auto& [index, layer] : layers_) {
    gauges[index] = {layer.runtime.load->MeanBatchViolation(), layer.runtime.scores.get()};
  }
  return gauges;
}

absl::Status Router::StartRecording() {
  if (options_.balance.record.empty()) {
    return absl::OkStatus();
  }
  ModelDescription model = checkpoint_->model();  // With the routing in force.
  for (MoeLayerDescription& layer : model.layers) {
    layer = layers_.at(layer.layer).runtime.description;
  }
  ASSIGN_OR_RETURN(recorder_, balance_control::RoutingRecorder::Create(
                                  options_.balance.record,
                                  balance::RecordedModelOf(model, checkpoint_->model_identity()),
                                  options_.balance.max_record_bytes, [] { return absl::Now(); }));
  environment_.recorder = recorder_.get();
  return absl::OkStatus();
}

void Router::StartServing() {
  for (auto& [index, layer] : layers_) {
    layer.batcher = std::make_unique<batch::LayerBatcher>(
        options_.batcher, clock_, timers_.get(),
        [this, served = &layer](std::vector<batch::ForwardJobPtr>&& jobs) {
          RunBatch(served, &jobs);
        });
  }
  forward_ = std::make_unique<serve::ForwardService>(
      serve::ForwardServiceOptions{environment_.d_model, options_.max_tokens_in_flight,
                                   options_.max_request_time, options_.max_message_bytes,
                                   options_.tracer},
      &layers_, &admission_, fleet_.get(), &metrics_, timers_.get(), pool_.get(), clock_);
}

absl::Status Router::Start(Transport* transport, mesh::WireEncodings encodings) {
  RETURN_IF_ERROR(StartRecording());
  pool_ = std::make_unique<ThreadPool>(options_.threads > 0 ? options_.threads : AvailableCores());
  timers_ = std::make_unique<TimerQueue>(clock_);
  cross_checker_ =
      std::make_unique<mesh::CrossChecker>(options_.cross_check_interval, &metrics_, clock_);
  environment_.wire = encodings.OfAll();
  environment_.shared_experts = options_.shared_experts;
  environment_.shared_work = &shared_work_;
  fleet_ =
      std::make_unique<mesh::Fleet>(checkpoint_,
                                    mesh::FleetOptions{std::move(encodings), options_.health,
                                                       options_.verify_bytes_per_second, biases_},
                                    &metrics_, transport, timers_.get(), clock_);
  environment_.fleet = fleet_.get();
  environment_.tracer = options_.tracer;
  environment_.cross_checker = cross_checker_.get();
  environment_.pool = pool_.get();
  environment_.clock = clock_;
  environment_.backend = backend_.get();
  environment_.metrics = &metrics_;
  environment_.layout = layout_.get();
  environment_.node_plans = &node_plans_;
  environment_.parts = &parts_;
  environment_.buffers = &buffers_;
  environment_.d_model = checkpoint_->model().d_model;
  environment_.activation_dtype = backend_->compute_dtype();
  environment_.max_frame_bytes = options_.max_frame_bytes;
  environment_.max_attempts = options_.max_attempts;
  environment_.inline_tokens = options_.inline_tokens;
  environment_.on_finished = [this](const batch::LayerRuntime* layer, uint64_t tokens,
                                    absl::Time closed_at) {
    OnBatchFinished(layer, tokens, closed_at);
  };
  StartServing();
  serve::SetMeshMetrics(fleet_->Summary(), &metrics_);
  fleet_subscription_ =
      fleet_->Subscribe([this] { serve::SetMeshMetrics(fleet_->Summary(), &metrics_); });
  authority_ = std::make_unique<balance_control::FlagAuthority>(options_.balance.follow);
  ASSIGN_OR_RETURN(
      controller_,
      balance_control::Controller::Create(
          options_.balance.controller, DescribeSteered(), [this] { return ReadCounts(); },
          balance_control::ControllerParts{authority_.get(), [this] { return ReadGauges(); },
                                           [this](const balance_control::Controller& controller) {
                                             balance_metrics_.Set(controller.GetBalance(),
                                                                  controller.GetPlacement(false));
                                           },
                                           options_.balance.links, fleet_.get(), clock_}));
  return absl::OkStatus();
}

Router::~Router() {
  if (fleet_ == nullptr) {  // Create failed half-way.
    return;
  }
  controller_.reset();
  forward_->AwaitReads();
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

void Router::RunBatch(const serve::ServedLayer* layer, std::vector<batch::ForwardJobPtr>* jobs) {
  admission_.BatchStarted();
  batch::BatchRun::Run(runs_.Take(), &environment_, &layer->runtime, jobs);
}

void Router::OnBatchFinished(const batch::LayerRuntime* layer, uint64_t tokens,
                             absl::Time closed_at) {
  layers_.at(layer->description.layer).batcher->BatchDone(tokens, clock_->Now() - closed_at);
  admission_.BatchFinished();
}

v1::DescribeModelResponse Router::DescribeModel() const {
  v1::DescribeModelResponse response =
      serve::DescribeModel(*checkpoint_, layers_, environment_.activation_dtype,
                           options_.max_message_bytes, options_.strict);
  response.set_version(options_.version);
  return response;
}

void Router::ShedMemory() {
  forward_->ShedMemory();
  runs_.Shed();
  parts_.Shed();
  buffers_.Shed();
  node_plans_.Shed();
  timers_->Schedule(clock_->Now(), TrimThread);
  // Who works meanwhile is not at rest.
  pool_->OnEachThread(TrimThread, absl::Milliseconds(100));
}

void Router::AddTo(telemetry::MetricsServer* server) {
  server->Add(std::make_shared<const serve::LoadMetrics>([this] { return ReadCounts(); },
                                                         options_.expert_metrics, clock_));
  server->AddExemplars(&metrics_.exemplars);
  serve::AddLoadPages(controller_.get(), &server->http());
}

serve::ServedRouter Router::served() {
  return {forward_.get(), fleet_.get(), controller_.get(),
          clock_,         &buffers_,    [this] { return DescribeModel(); }, options_.tracer};
}

}  // namespace expertmesh::router
