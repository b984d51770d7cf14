// When two authorities ask, the node obeys the one with the higher term.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "common/wire/error_reason.h"
#include "expert_service/node.h"
#include "tests/unit/expert_service/fakes.h"

namespace expertmesh::node {
namespace {

using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::Pair;

class NodeTermTest : public testing::Test {
 protected:
  NodeTermTest() {
    NodeOptions options;
    options.node_id = "node-a";
    options.cpu_time = NoCpuTime;
    node_ = *Node::Create(options, checkpoint_, &backend_, &clock_,
                          std::make_shared<prometheus::Registry>());
    EXPECT_TRUE(node_->Load({{{1, {0, 1, 2}, {}}}}).ok());
  }

  absl::Status Load(uint32_t expert, uint64_t term) {
    internal::v1::LoadExpertsRequest request;
    request.add_experts()->set_layer(1);
    request.mutable_experts(0)->add_experts(expert);
    request.set_term(term);
    return node_->LoadExperts(request).status();
  }
  absl::Status Unload(uint32_t expert, uint64_t term) {
    internal::v1::UnloadExpertsRequest request;
    request.add_experts()->set_layer(1);
    request.mutable_experts(0)->add_experts(expert);
    request.set_term(term);
    return node_->UnloadExperts(request).status();
  }
  bool Holds(uint32_t expert) {
    const v1::NodeDescription description = node_->Describe();
    const auto& held = description.hosted(0).experts();
    return std::find(held.begin(), held.end(), expert) != held.end();
  }
  static void ExpectPassed(const absl::Status& status, const std::string& term,
                           const std::string& seen) {
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(ReasonOf(status), v1::ERROR_REASON_TERM_PASSED);
    EXPECT_THAT(DetailsOf(status).metadata, IsSupersetOf({Pair("term", term), Pair("seen", seen)}));
    EXPECT_THAT(std::string(status.message()), HasSubstr("term is " + term));
    EXPECT_THAT(std::string(status.message()), HasSubstr("in term " + seen));
  }

  std::shared_ptr<FakeCheckpoint> checkpoint_ = MakeCheckpoint();
  FakeBackend backend_;
  FakeClock clock_;
  std::unique_ptr<Node> node_;
};

TEST_F(NodeTermTest, ALowerTermIsRefusedAndChangesNothing) {
  EXPECT_TRUE(Load(5, 7).ok());
  ExpectPassed(Load(6, 6), "6", "7");
  ExpectPassed(Unload(0, 1), "1", "7");
  EXPECT_FALSE(Holds(6));
  EXPECT_TRUE(Holds(0));
  EXPECT_TRUE(Unload(0, 7).ok());
  EXPECT_TRUE(Unload(1, 9).ok());  // An unload, too, says which term it is.
  ExpectPassed(Load(6, 8), "8", "9");
  EXPECT_TRUE(Load(6, 9).ok());
}

TEST_F(NodeTermTest, WhoHasNoTermIsAlwaysObeyed) {
  EXPECT_TRUE(Load(5, 0).ok());
  EXPECT_TRUE(Load(6, 1).ok());
  EXPECT_TRUE(Unload(6, 0).ok());
  EXPECT_TRUE(Load(7, 1).ok());
}

TEST_F(NodeTermTest, WhatWaitedWhileAHigherTermCameIsRefused) {
  absl::Notification packing;
  absl::Notification go_on;
  backend_.OnPack([&] {
    if (!packing.HasBeenNotified()) {
      packing.Notify();
      go_on.WaitForNotification();
    }
  });
  std::vector<std::thread> threads;
  threads.emplace_back([this] { EXPECT_TRUE(Load(5, 1).ok()); });
  packing.WaitForNotification();
  // All of these wait for the load, but for those that are refused at the door.
  threads.emplace_back([this] { ExpectPassed(Unload(0, 1), "1", "2"); });
  threads.emplace_back([this] { EXPECT_TRUE(Load(6, 2).ok()); });
  std::atomic<bool> higher_term_is_seen{false};
  while (!higher_term_is_seen) {
    threads.emplace_back([&] {
      ExpectPassed(Unload(1, 1), "1", "2");
      higher_term_is_seen = true;
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  go_on.Notify();
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_TRUE(Holds(0));
  EXPECT_TRUE(Holds(1));
  EXPECT_TRUE(Holds(6));
}

}  // namespace
}  // namespace expertmesh::node
