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
#include "tests/support/fake_backend.h"
#include "tests/support/fake_checkpoint.h"
#include "tests/support/fake_node.h"
#include "tests/support/faulty_transport.h"
#include "tests/support/in_process_transport.h"

namespace expertmesh::router {

inline constexpr uint32_t kModel = 8;

// Computes shared experts.
inline std::unique_ptr<FakeBackend> MakeBackend() {
  return std::make_unique<FakeBackend>(
      Dtype::kF32, [](float, IntermediateSlice, float x, uint32_t) { return FakeShared(x); });
}

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
  Dtype dtype = Dtype::kF32;  // As it came.
};

class RouterTest : public testing::Test {
 protected:
  void StartRouter(const RouterOptions& options = {}, bool shared_expert = false) {
    FakeCheckpointOptions checkpoint;
    checkpoint.shared_expert = shared_expert;
    StartRouter(options, checkpoint);
  }
  void StartRouter(const RouterOptions& options, const FakeCheckpointOptions& checkpoint) {
    std::unique_ptr<FakeBackend> backend = MakeBackend();
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
  void AwaitTopology(const std::function<bool(const v1::Topology&)>& condition) {
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
    AwaitTopology([this](const v1::Topology& topology) {
      const std::shared_ptr<const mesh::MeshView> view = router_->fleet().view();
      bool placed = topology.ready();
      for (int node = 0; node < topology.nodes_size(); ++node) {
        placed = placed && IsPlaced(topology.nodes(node), static_cast<mesh::NodeIndex>(node),
                                    view->placement());
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
    TensorFrame tensor{Dtype::kF32, rows.size() / d_model, d_model, {}};
    tensor.data =
        Frame(std::string(reinterpret_cast<const char*>(rows.data()), rows.size() * sizeof(float)));
    return EncodeTensorMessage(request, &tensor);
  }

  static std::shared_ptr<CallContext> Call(absl::Time deadline = absl::InfiniteFuture()) {
    return std::make_shared<CallContext>(CallContext::Caller{.deadline = deadline});
  }

  // The answer will be in `answer` when `done` is notified.
  void Send(const Frame& frame, Answer* answer, absl::Notification* done,
            const CallContextPtr& context = Call()) {
    router_->Forward(
        frame, context,
        [answer, done](v1::ForwardResponse response, std::optional<TensorFrame> output) {
          answer->status = FromWire(response.status());
          answer->response = std::move(response);
          if (output) {
            answer->output.resize(output->rows * output->cols);
            DecodeRows(*output, Dtype::kF32, answer->output.data());
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
    Send(Encode(request, rows), &answer, &done, Call(deadline));
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
  FakeBackend* backend_ = nullptr;  // Owned by the router.
  std::unique_ptr<Router> router_;
};

}  // namespace expertmesh::router

#endif  // EXPERTMESH_TESTS_UNIT_ROUTER_SERVICE_ROUTER_FIXTURE_H_
