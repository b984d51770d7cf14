// A controller on a fake clock, whose counts the test makes up.
#ifndef EXPERTMESH_TESTS_UNIT_ROUTER_SERVICE_BALANCE_CONTROLLER_FIXTURE_H_
#define EXPERTMESH_TESTS_UNIT_ROUTER_SERVICE_BALANCE_CONTROLLER_FIXTURE_H_

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "router_service/balance/controller.h"
#include "tests/support/fake_authority_links.h"
#include "tests/support/fake_checkpoint.h"
#include "tests/support/scripted_nodes.h"

namespace expertmesh::balance_control {

// Layers 1 and 2 of two experts can be steered, layer 3 cannot.
inline SteeredModel SteeredTestModel() {
  SteeredModel model;
  model.outline = "abc";
  MoeLayerDescription description;
  RoutingOptions& routing = description.routing;
  routing.num_experts = 2;
  routing.top_k = 1;
  model.layers[1] = MakeSteeredLayer(description, {.5f, .5f});
  model.layers[2] = MakeSteeredLayer(description, {});
  routing.choice = Choice::kHash;
  model.layers[3] = MakeSteeredLayer(description, {});
  return model;
}

class ControllerTest : public testing::Test {
 protected:
  static constexpr absl::Duration kInterval = absl::Seconds(1);

  ControllerTest() {
    mesh::FleetOptions fleet;
    fleet.encodings = *mesh::WireEncodings::Parse("auto", "auto", Dtype::kF32);
    fleet.biases = std::make_shared<const mesh::SelectBiases>();
    fleet_ =
        std::make_unique<mesh::Fleet>(std::make_shared<FakeCheckpoint>(FakeCheckpointOptions()),
                                      std::move(fleet), &metrics_, &transport_, &timers_, &clock_);
    const testing::TestInfo& test = *testing::UnitTest::GetInstance()->current_test_info();
    folder_ = testing::TempDir() + "/controller_" + test.name();
    std::filesystem::remove_all(folder_);
    options_.router_id = "me";
    options_.interval = kInterval;
    options_.policy.step_tokens = 10;
    options_.policy.quality_budget = 1;
    options_.policy.rate = .25f;
    counts_[1] = {0, 0, 0, 0, {0, 0}};
    counts_[2] = counts_[1];
    counts_[3] = counts_[1];
  }
  ~ControllerTest() override {
    Stop();
    std::filesystem::remove_all(folder_);
  }

  absl::Status Start(const std::string& follow = "") {
    authority_ = std::make_unique<FlagAuthority>(follow);
    absl::StatusOr<std::unique_ptr<Controller>> controller =
        Controller::Create(options_, SteeredTestModel(),
                           [this] {
                             absl::MutexLock lock(&mutex_);
                             ++reads_;
                             return counts_;
                           },
                           {authority_.get(), nullptr, nullptr, &links_, fleet_.get(), &clock_});
    if (!controller.ok()) {
      return controller.status();
    }
    controller_ = *std::move(controller);
    subscription_ = controller_->Subscribe([this] {
      absl::MutexLock lock(&mutex_);
      told_ = reads_;
    });
    clock_.AwaitWaiters(2);  // The controller, after the first tick, and the fleet's timers.
    return absl::OkStatus();
  }
  void Stop() {
    subscription_.reset();
    controller_.reset();
  }

  // `condition` may change whenever something is told.
  template <typename Condition>
  void Await(Condition condition) {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&condition));
  }
  // A tick begins with a reading of the counts, and tells when it is over.
  void Tick() {
    uint64_t before = 0;
    {
      absl::MutexLock lock(&mutex_);
      before = reads_;
    }
    clock_.Advance(kInterval);
    Await([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return told_ > before; });
  }
  void Count(uint32_t layer, uint64_t first, uint64_t second) {
    absl::MutexLock lock(&mutex_);
    LayerCounts& counts = counts_[layer];
    counts.tokens += first + second;
    counts.assignments[0] += first;
    counts.assignments[1] += second;
  }
  // So many tokens, half of which go elsewhere than the checkpoint alone would send them.
  void CountHalfChanged(uint32_t layer, uint64_t tokens) {
    Count(layer, tokens, 0);
    absl::MutexLock lock(&mutex_);
    counts_[layer].compared += tokens;
    counts_[layer].changed += tokens / 2;
  }
  std::vector<float> Live(uint32_t layer) const {
    const absl::Span<const float> live = view_bias(layer).live;
    return {live.begin(), live.end()};
  }
  gate::SelectBias view_bias(uint32_t layer) const {
    view_ = fleet_->view();
    return view_->SelectBias(layer);
  }
  absl::StatusOr<v1::Balance> SetRule(v1::BalanceRule rule, std::vector<uint32_t> layers = {}) {
    v1::SetBalanceRequest request;
    request.mutable_layers()->Add(layers.begin(), layers.end());
    request.mutable_policy()->set_rule(rule);
    return controller_->SetBalance(request);
  }
  absl::StatusOr<v1::Balance> SetBias(uint32_t layer, const std::vector<float>& values) {
    v1::SetBiasRequest request;
    v1::LayerBias& bias = *request.mutable_bias()->add_layers();
    bias.set_layer(layer);
    bias.mutable_values()->Add(values.begin(), values.end());
    return controller_->SetBias(request);
  }

  FakeClock clock_;
  TimerQueue timers_{&clock_};
  prometheus::Registry registry_;
  metrics::RouterMetrics metrics_{registry_};
  ScriptedNodes transport_;  // No node is spoken of.
  std::unique_ptr<mesh::Fleet> fleet_;
  FakeAuthorityLinks links_;
  ControllerOptions options_;
  std::string folder_;
  std::unique_ptr<const Authority> authority_;

  absl::Mutex mutex_;
  LoadCounts counts_ ABSL_GUARDED_BY(mutex_);
  uint64_t reads_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t told_ ABSL_GUARDED_BY(mutex_) = 0;  // reads_, when something was told last.
  mutable std::shared_ptr<const mesh::MeshView> view_;
  std::unique_ptr<Controller> controller_;
  std::shared_ptr<void> subscription_;
};

}  // namespace expertmesh::balance_control

#endif  // EXPERTMESH_TESTS_UNIT_ROUTER_SERVICE_BALANCE_CONTROLLER_FIXTURE_H_
