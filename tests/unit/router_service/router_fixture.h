// A router on the in-process transport, with nodes whose arithmetic gives mistakes away.
#ifndef EXPERTMESH_TESTS_UNIT_ROUTER_SERVICE_ROUTER_FIXTURE_H_
#define EXPERTMESH_TESTS_UNIT_ROUTER_SERVICE_ROUTER_FIXTURE_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "router_service/router.h"
#include "tests/support/compare_rows.h"
#include "tests/support/fake_checkpoint.h"
#include "tests/support/faulty_transport.h"
#include "tests/support/in_process_transport.h"
#include "tests/unit/router_service/fake_node.h"

namespace expertmesh::router {

inline constexpr uint32_t kModel = 8;

// What the shared expert of these tests does to a row.
inline float FakeShared(float x) { return 1000.0f * x; }

class FakeBackend final : public experts::Backend {
 public:
  struct Packed final : experts::PackedExpert {
    size_t bytes() const override { return 1; }
  };
  absl::string_view name() const override { return "fake"; }
  DType compute_dtype() const override { return DType::kF32; }
  absl::StatusOr<std::shared_ptr<const experts::PackedExpert>> Pack(const ExpertOptions& options,
                                                                    const ExpertWeights&,
                                                                    IntermediateSlice) override {
    packed_as = options;
    return std::make_shared<const Packed>();
  }
  absl::StatusOr<uint64_t> PackedBytes(const ExpertOptions&, const ExpertWeights&,
                                       IntermediateSlice) override {
    return 1;
  }
  size_t preferred_in_flight() const override { return 1; }
  void Submit(const experts::GroupedBatch& batch, Completion done) override {
    const float* rows = static_cast<const float*>(batch.hidden_states);
    for (size_t i = 0; i < batch.rows * batch.d_model; ++i) {
      batch.partials[i] = batch.weights[i / batch.d_model] * FakeShared(rows[i]);
    }
    std::move(done)(absl::OkStatus());
  }

  // Of the last expert packed.
  ExpertOptions packed_as;
};

inline std::vector<float> RandomRows(uint32_t seed, size_t rows) {
  std::mt19937 random(seed);
  std::vector<float> values(rows * kModel);
  for (float& value : values) {
    value = static_cast<float>(random() % 2000) / 1000.0f - 1.0f;
  }
  return values;
}

struct Answer {
  absl::Status status;
  v1::ForwardResponse response;
  std::vector<float> output;  // Decoded.
  DType dtype = DType::kF32;  // As it came.
};

class RouterTest : public testing::Test {
 protected:
  void StartRouter(const RouterOptions& options = {}, bool shared_expert = false) {
    FakeCheckpointOptions checkpoint;
    checkpoint.shared_expert = shared_expert;
    StartRouter(options, checkpoint);
  }
  void StartRouter(const RouterOptions& options, const FakeCheckpointOptions& checkpoint) {
    auto backend = std::make_unique<FakeBackend>();
    backend_ = backend.get();
    absl::StatusOr<std::unique_ptr<Router>> router =
        Router::Create(options, std::make_shared<FakeCheckpoint>(checkpoint), std::move(backend),
                       faulty_ == nullptr ? static_cast<Transport*>(&network_) : faulty_.get(),
                       &clock_, &registry_);
    ASSERT_TRUE(router.ok()) << router.status();
    router_ = *std::move(router);
  }

  void TearDown() override {
    for (auto& [address, node] : nodes_) {
      node->Release();
    }
    router_.reset();
  }

  FakeNode& AddNodeWith(const std::string& address, const FakeNodeOptions& options) {
    nodes_[address] = std::make_unique<FakeNode>(options);
    network_.Register(address, nodes_[address].get());
    addresses_.push_back(address);
    return *nodes_[address];
  }
  FakeNode& AddNode(const std::string& address, const std::vector<uint32_t>& experts) {
    return AddNodeWith(address, FakeNodeOptions{.experts = experts});
  }

  // Waits until the router's topology satisfies `condition`.
  void AwaitTopology(const std::function<bool(const v1::GetTopologyResponse&)>& condition) {
    absl::Mutex mutex;
    bool met = condition(router_->fleet().Topology());
    const uint64_t id = router_->fleet().Subscribe([&] {
      const bool now = condition(router_->fleet().Topology());
      absl::MutexLock lock(&mutex);
      met = met || now;
    });
    {
      const bool now = condition(router_->fleet().Topology());
      absl::MutexLock lock(&mutex);
      met = met || now;
      mutex.Await(absl::Condition(&met));
    }
    router_->fleet().Unsubscribe(id);
  }
  // Until every node is up and placed for all that it holds, but for what is damaged. Not readiness
  // alone: a node that has everything makes the mesh ready before its replicas are up; nor links
  // alone: they are up a moment before what they hold is placed.
  void Connect() {
    router_->fleet().SetAddresses(addresses_);
    AwaitTopology([this](const v1::GetTopologyResponse& topology) {
      const std::shared_ptr<const mesh::Placement> placement = router_->fleet().placement();
      bool placed = topology.ready();
      for (int node = 0; node < topology.nodes_size(); ++node) {
        placed = placed &&
                 IsPlaced(topology.nodes(node), static_cast<mesh::NodeIndex>(node), *placement);
      }
      return placed;
    });
  }

  static bool IsPlaced(const v1::TopologyNode& node, mesh::NodeIndex index,
                       const mesh::Placement& placement) {
    const auto is_damaged = [&node](uint32_t layer, uint32_t expert) {
      return std::any_of(
          node.damaged().begin(), node.damaged().end(), [&](const v1::DamagedExperts& damaged) {
            return damaged.layer() == layer &&
                   std::count(damaged.experts().begin(), damaged.experts().end(), expert) > 0;
          });
    };
    bool placed = node.link() == v1::NODE_LINK_UP;
    for (const v1::HostedExperts& held : node.description().hosted()) {
      for (const uint32_t expert : held.experts()) {
        placed = placed && ((*placement.Layer(held.layer()))[expert].SliceOn(index).has_value() ||
                            is_damaged(held.layer(), expert));
      }
    }
    return placed;
  }

  static Frame Encode(const v1::ForwardRequest& request, const std::vector<float>& rows,
                      uint32_t d_model = kModel) {
    TensorFrame tensor{DType::kF32, rows.size() / d_model, d_model, {}};
    tensor.data =
        Frame(std::string(reinterpret_cast<const char*>(rows.data()), rows.size() * sizeof(float)));
    return EncodeTensorMessage(request, &tensor);
  }

  // The answer will be in `answer` when `done` is notified.
  void Send(const Frame& frame, Answer* answer, absl::Notification* done,
            absl::Time deadline = absl::InfiniteFuture()) {
    router_->Forward(
        frame, deadline,
        [answer, done](v1::ForwardResponse response, std::optional<TensorFrame> output) {
          answer->status = absl::Status(static_cast<absl::StatusCode>(response.status().code()),
                                        response.status().message());
          answer->response = std::move(response);
          if (output) {
            answer->output.resize(output->rows * output->cols);
            DecodeRows(*output, DType::kF32, answer->output.data());
            answer->dtype = output->dtype;
          }
          done->Notify();
        });
  }

  Answer Forward(uint32_t layer, const std::vector<float>& rows,
                 absl::Time deadline = absl::InfiniteFuture()) {
    v1::ForwardRequest request;
    request.set_request_id(5);
    request.set_layer(layer);
    return ForwardRequest(std::move(request), rows, deadline);
  }
  // `request` for these rows, with its routing.
  Answer ForwardRequest(v1::ForwardRequest request, const std::vector<float>& rows,
                        absl::Time deadline = absl::InfiniteFuture()) {
    request.set_return_routing(true);
    Answer answer;
    absl::Notification done;
    Send(Encode(request, rows), &answer, &done, deadline);
    done.WaitForNotification();
    return answer;
  }

  // What `rows` must become by the routing in the answer.
  static std::vector<float> Expected(uint32_t layer, const std::vector<float>& rows,
                                     const v1::Routing& routing, bool shared = false) {
    std::vector<float> expected(rows.size());
    int begin = 0;
    for (size_t row = 0; row < rows.size() / kModel; ++row) {
      const bool ragged = routing.assignments_per_token_size() > 0;
      const int end =
          begin + static_cast<int>(ragged ? routing.assignments_per_token(static_cast<int>(row))
                                          : routing.experts_per_token());
      for (size_t i = row * kModel; i < (row + 1) * kModel; ++i) {
        for (int at = begin; at < end; ++at) {
          expected[i] +=
              routing.expert_weights(at) * FakeExpert(layer, routing.expert_ids(at), rows[i]);
        }
        expected[i] += shared ? FakeShared(rows[i]) : 0.0f;
      }
      begin = end;
    }
    return expected;
  }

  static void ExpectRight(uint32_t layer, const std::vector<float>& rows, const Answer& answer,
                          bool shared = false) {
    ASSERT_TRUE(answer.status.ok()) << answer.status;
    const std::vector<float> expected = Expected(layer, rows, answer.response.routing(), shared);
    // Sums of a handful of float32 terms, in another order than ours.
    EXPECT_TRUE(RowsNear(answer.output, expected, kModel,
                         [&](size_t i) { return 1e-5 * (1.0 + std::abs(expected[i])); }));
  }

  FakeClock clock_;
  InProcessNetwork network_;
  // Set before the router starts: breaks what goes over the network.
  std::unique_ptr<FaultyTransport> faulty_;
  prometheus::Registry registry_;
  std::map<std::string, std::unique_ptr<FakeNode>> nodes_;
  std::vector<std::string> addresses_;
  FakeBackend* backend_ = nullptr;  // Of the router.
  std::unique_ptr<Router> router_;
};

}  // namespace expertmesh::router

#endif  // EXPERTMESH_TESTS_UNIT_ROUTER_SERVICE_ROUTER_FIXTURE_H_
