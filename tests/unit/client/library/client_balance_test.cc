// What the client makes of balancing, against a small server that remembers what it was asked.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "client/cpp/expertmesh/client.h"
#include "common/net/grpc_server.h"
#include "common/wire/error_reason.h"
#include "expertmesh/v1/control.grpc.pb.h"
#include "expertmesh/v1/router.grpc.pb.h"
#include "tests/support/scripted_watch.h"

namespace expertmesh::client {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

v1::BalanceSummary SummaryOf(uint64_t tick_ms) {
  v1::BalanceSummary summary;
  summary.set_role(v1::BALANCE_ROLE_FOLLOWER);
  summary.set_authority("first:50050");
  summary.set_term(12);
  summary.set_reason("the authority is silent");
  summary.set_since_tick_ms(tick_ms);
  return summary;
}

v1::LayerMeasures MeasuresOf() {
  v1::LayerMeasures measures;
  measures.set_batch_max_violation(1.25);
  measures.set_load_variation(2.25);
  measures.set_load_loss(3.25);
  measures.set_load_entropy(4.25);
  measures.set_mean_squared_share(5.25);
  measures.set_dead_experts(6);
  measures.set_collapse("dead: expert 7");
  measures.set_sampled_tokens(8);
  measures.set_switch_loss(9.25);
  measures.set_gshard_loss(10.25);
  measures.set_megatron_loss(11.25);
  measures.set_sequence_loss(12.25);
  measures.set_importance_loss(13.25);
  measures.set_z_loss(14.25);
  measures.set_second_place_loss(15.25);
  return measures;
}

v1::Balance BalanceOf(uint64_t epoch, uint64_t age_ms) {
  v1::Balance balance;
  *balance.mutable_summary() = SummaryOf(age_ms);
  balance.set_epoch(epoch);
  v1::LayerBalance& layer = *balance.add_layers();
  layer.set_layer(3);
  layer.mutable_policy()->set_rule(v1::BALANCE_RULE_PROPORTIONAL);
  layer.mutable_policy()->set_rate(0.25f);
  layer.mutable_policy()->set_clamp(0.5f);
  layer.mutable_policy()->set_decay(0.125f);
  layer.mutable_policy()->set_quality_budget(0.0625f);
  layer.mutable_policy()->set_step_tokens(uint64_t{1} << 40);
  layer.mutable_policy()->set_paused(true);
  layer.set_outcome("stepped");
  layer.set_at_checkpoint(true);
  layer.set_bias_distance(0.75f);
  layer.set_tokens(100);
  layer.set_max_violation(1.5);
  layer.set_compared_tokens(90);
  layer.set_changed_tokens(8);
  *layer.mutable_measures() = MeasuresOf();
  balance.add_layers()->set_not_steerable("no scores");
  v1::ReportingRouter& router = *balance.add_routers();
  router.set_router_id("r1");
  router.set_self(true);
  router.set_tokens(200);
  router.set_age_ms(age_ms);
  router.set_epoch(6);
  router.set_gone(true);
  return balance;
}

// Epochs 1, 1 and 2; the second differs from the first in nothing but ages.
template <typename Response, typename Set>
absl::Status WatchTwoEpochs(net::ServerStreamSink& watcher, const Set& set) {
  for (const auto& [epoch, age] : {std::pair<uint64_t, uint64_t>(1, 10), {1, 20}, {2, 30}}) {
    Response response;
    set(epoch, age, &response);
    if (!net::SendMessage(watcher, response)) {
      return absl::CancelledError("the caller has seen enough");
    }
  }
  return absl::AbortedError("enough");
}

class ClientBalanceTest : public testing::Test {
 protected:
  ClientBalanceTest() {
    v1::SetBalanceResponse set;
    *set.mutable_balance() = BalanceOf(8, 0);
    v1::SetBiasResponse imported;
    *imported.mutable_balance() = BalanceOf(9, 0);
    v1::GetBalanceResponse got;
    *got.mutable_balance() = BalanceOf(7, 1500);
    v1::GetBiasResponse bias;
    bias.mutable_bias()->set_epoch(5);
    bias.mutable_bias()->set_outline("abc");
    v1::LayerBias& layer = *bias.mutable_bias()->add_layers();
    layer.set_layer(3);
    layer.add_values(0.5f);
    layer.add_values(-0.25f);
    net::GrpcServerSpec spec;
    spec.address = "127.0.0.1:0";
    Add<v1::GetBalanceRequest>("GetBalance", got, &spec);
    Add<v1::SetBalanceRequest>("SetBalance", set, &spec);
    Add<v1::GetBiasRequest>("GetBias", bias, &spec);
    Add<v1::SetBiasRequest>("SetBias", imported, &spec);
    Add<v1::GetLoadRequest>("GetLoad", Load(), &spec);
    Add<v1::GetTopologyRequest>("GetTopology", Topology(), &spec);
    spec.streams.push_back(net::ScriptedWatch(
        "/expertmesh.v1.Control/WatchBalance", [](net::ServerStreamSink& watcher) {
          return WatchTwoEpochs<v1::WatchBalanceResponse>(
              watcher, [](uint64_t epoch, uint64_t age, v1::WatchBalanceResponse* response) {
                *response->mutable_balance() = BalanceOf(epoch, age);
              });
        }));
    spec.streams.push_back(net::ScriptedWatch(
        "/expertmesh.v1.Control/WatchTopology", [](net::ServerStreamSink& watcher) {
          return WatchTwoEpochs<v1::WatchTopologyResponse>(
              watcher, [](uint64_t epoch, uint64_t age, v1::WatchTopologyResponse* response) {
                response->mutable_topology()->set_epoch(epoch);
                *response->mutable_topology()->mutable_balance() = SummaryOf(age);
              });
        }));
    auto server = net::GrpcServer::Start(std::move(spec));
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    auto client = Client::Connect("127.0.0.1:" + std::to_string(server_->port()));
    EXPECT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
  }

  template <typename Request, typename Response>
  void Add(const std::string& name, const Response& answer, net::GrpcServerSpec* spec) {
    spec->ordinary.push_back(net::OrdinaryMethod<Request, Response>(
        "/expertmesh.v1.Control/" + name,
        [this, answer](const Request& request) -> absl::StatusOr<Response> {
          absl::MutexLock lock(&mutex_);
          asked_.push_back(request.SerializeAsString());
          if (!refusal_.ok()) {
            return refusal_;
          }
          return answer;
        }));
  }

  static v1::GetLoadResponse Load() {
    v1::GetLoadResponse response;
    response.set_window_ms(1250);
    v1::LayerLoad& layer = *response.add_layers();
    layer.set_compared_tokens(90);
    layer.set_changed_tokens(8);
    layer.set_node_us(uint64_t{1} << 40);
    return response;
  }

  static v1::GetTopologyResponse Topology() {
    v1::GetTopologyResponse response;
    response.mutable_topology()->set_revision(17);
    *response.mutable_topology()->mutable_balance() = SummaryOf(250);
    return response;
  }

  // The last request.
  template <typename Request>
  Request Asked() {
    absl::MutexLock lock(&mutex_);
    Request request;
    EXPECT_TRUE(!asked_.empty() && request.ParseFromString(asked_.back()));
    return request;
  }

  void Refuse(const absl::Status& why) {
    absl::MutexLock lock(&mutex_);
    refusal_ = why;
  }

  absl::Mutex mutex_;
  std::vector<std::string> asked_ ABSL_GUARDED_BY(mutex_);
  absl::Status refusal_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<net::GrpcServer> server_;
  std::unique_ptr<Client> client_;
};

TEST_F(ClientBalanceTest, ShowsTheBalance) {
  const auto balance = client_->GetBalance();
  ASSERT_TRUE(balance.ok()) << balance.status();
  EXPECT_EQ(balance->epoch, 7u);
  EXPECT_EQ(balance->summary.role, BalanceRole::kFollower);
  EXPECT_EQ(balance->summary.authority, "first:50050");
  EXPECT_EQ(balance->summary.term, 12u);
  EXPECT_FALSE(balance->summary.alive);
  EXPECT_EQ(balance->summary.reason, "the authority is silent");
  EXPECT_EQ(balance->summary.since_tick, absl::Milliseconds(1500));
  EXPECT_EQ(balance->summary.since_change, std::nullopt);
  ASSERT_EQ(balance->layers.size(), 2u);
  const LayerBalance& layer = balance->layers[0];
  EXPECT_EQ(layer.layer, 3u);
  EXPECT_EQ(layer.policy.rule, BalanceRule::kProportional);
  EXPECT_EQ(layer.policy.rate, 0.25f);
  EXPECT_EQ(layer.policy.clamp, 0.5f);
  EXPECT_EQ(layer.policy.decay, 0.125f);
  EXPECT_EQ(layer.policy.quality_budget, 0.0625f);
  EXPECT_EQ(layer.policy.step_tokens, uint64_t{1} << 40);
  EXPECT_TRUE(layer.policy.paused);
  EXPECT_EQ(layer.outcome, "stepped");
  EXPECT_EQ(layer.not_steerable, "");
  EXPECT_TRUE(layer.at_checkpoint);
  EXPECT_EQ(layer.bias_distance, 0.75f);
  EXPECT_EQ(layer.tokens, 100u);
  EXPECT_EQ(layer.max_violation, 1.5);
  EXPECT_EQ(layer.compared_tokens, 90u);
  EXPECT_EQ(layer.changed_tokens, 8u);
  EXPECT_EQ(balance->layers[1].not_steerable, "no scores");
  EXPECT_EQ(balance->layers[1].policy.rule, BalanceRule::kUnknown);
  ASSERT_EQ(balance->routers.size(), 1u);
  const ReportingRouter& router = balance->routers[0];
  EXPECT_EQ(router.router_id, "r1");
  EXPECT_TRUE(router.self);
  EXPECT_EQ(router.tokens, 200u);
  EXPECT_EQ(router.age, absl::Milliseconds(1500));
  EXPECT_EQ(router.epoch, 6u);
  EXPECT_TRUE(router.gone);
}

TEST_F(ClientBalanceTest, ShowsEveryMeasureOfALayer) {
  const auto balance = client_->GetBalance();
  ASSERT_TRUE(balance.ok()) << balance.status();
  const std::optional<LayerMeasures>& measures = balance->layers[0].measures;
  ASSERT_TRUE(measures.has_value());
  EXPECT_EQ(measures->batch_max_violation, 1.25);
  EXPECT_EQ(measures->load_variation, 2.25);
  EXPECT_EQ(measures->load_loss, 3.25);
  EXPECT_EQ(measures->load_entropy, 4.25);
  EXPECT_EQ(measures->mean_squared_share, 5.25);
  EXPECT_EQ(measures->dead_experts, 6u);
  EXPECT_EQ(measures->collapse, "dead: expert 7");
  EXPECT_EQ(measures->sampled_tokens, 8u);
  EXPECT_EQ(measures->switch_loss, 9.25);
  EXPECT_EQ(measures->gshard_loss, 10.25);
  EXPECT_EQ(measures->megatron_loss, 11.25);
  EXPECT_EQ(measures->sequence_loss, 12.25);
  EXPECT_EQ(measures->importance_loss, 13.25);
  EXPECT_EQ(measures->z_loss, 14.25);
  EXPECT_EQ(measures->second_place_loss, 15.25);
  EXPECT_FALSE(balance->layers[1].measures.has_value());
}

TEST_F(ClientBalanceTest, TheTopologySaysWhoDecides) {
  const auto topology = client_->Topology();
  ASSERT_TRUE(topology.ok()) << topology.status();
  EXPECT_EQ(topology->revision, 17u);
  EXPECT_EQ(topology->balance.role, BalanceRole::kFollower);
  EXPECT_EQ(topology->balance.since_tick, absl::Milliseconds(250));
}

TEST_F(ClientBalanceTest, ChangesWhatIsGivenAndNothingElse) {
  BalanceChange change;
  change.layers = {3, 5};
  change.rule = BalanceRule::kSign;
  change.quality_budget = 0.0f;
  change.paused = false;
  const auto balance = client_->SetBalance(change);
  ASSERT_TRUE(balance.ok()) << balance.status();
  EXPECT_EQ(balance->epoch, 8u);
  auto asked = Asked<v1::SetBalanceRequest>();
  EXPECT_THAT(asked.layers(), ElementsAre(3, 5));
  EXPECT_FALSE(asked.reset_bias());
  EXPECT_EQ(asked.policy().rule(), v1::BALANCE_RULE_SIGN);
  EXPECT_TRUE(asked.policy().has_quality_budget());
  EXPECT_EQ(asked.policy().quality_budget(), 0.0f);
  EXPECT_TRUE(asked.policy().has_paused());
  EXPECT_FALSE(asked.policy().has_rate() || asked.policy().has_clamp() ||
               asked.policy().has_decay() || asked.policy().has_step_tokens());

  change = {};
  change.rate = 0.5f;
  change.clamp = 0.25f;
  change.decay = 0.125f;
  change.step_tokens = 9;
  change.reset_bias = true;
  ASSERT_TRUE(client_->SetBalance(change).ok());
  asked = Asked<v1::SetBalanceRequest>();
  EXPECT_TRUE(asked.layers().empty());
  EXPECT_TRUE(asked.reset_bias());
  EXPECT_EQ(asked.policy().rule(), v1::BALANCE_RULE_UNSPECIFIED);
  EXPECT_EQ(asked.policy().rate(), 0.5f);
  EXPECT_EQ(asked.policy().clamp(), 0.25f);
  EXPECT_EQ(asked.policy().decay(), 0.125f);
  EXPECT_EQ(asked.policy().step_tokens(), 9u);
  EXPECT_FALSE(asked.policy().has_quality_budget() || asked.policy().has_paused());
}

TEST_F(ClientBalanceTest, ARefusalNamesTheAuthority) {
  Refuse(ErrorOf(v1::ERROR_REASON_NOT_AUTHORITY, "this router follows the one at first:50050",
                 {{"authority", "first:50050"}}));
  const absl::Status status = client_->SetBalance({}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("first:50050"));
  EXPECT_EQ(DetailsOf(status).metadata["authority"], "first:50050");
}

TEST_F(ClientBalanceTest, ABiasGoesBothWays) {
  const auto bias = client_->GetBias(5);
  ASSERT_TRUE(bias.ok()) << bias.status();
  EXPECT_EQ(Asked<v1::GetBiasRequest>().epoch(), 5u);
  EXPECT_EQ(bias->epoch, 5u);
  EXPECT_EQ(bias->outline, "abc");
  ASSERT_EQ(bias->layers.size(), 1u);
  EXPECT_EQ(bias->layers[0].layer, 3u);
  EXPECT_THAT(bias->layers[0].values, ElementsAre(0.5f, -0.25f));
  ASSERT_TRUE(client_->GetBias().ok());
  EXPECT_EQ(Asked<v1::GetBiasRequest>().epoch(), 0u);

  const auto balance = client_->SetBias(*bias);
  ASSERT_TRUE(balance.ok()) << balance.status();
  EXPECT_EQ(balance->epoch, 9u);
  const auto asked = Asked<v1::SetBiasRequest>();
  EXPECT_EQ(asked.bias().outline(), "abc");
  ASSERT_EQ(asked.bias().layers_size(), 1);
  EXPECT_EQ(asked.bias().layers(0).layer(), 3u);
  EXPECT_THAT(asked.bias().layers(0).values(), ElementsAre(0.5f, -0.25f));
}

TEST_F(ClientBalanceTest, TheLoadIsThatOfTheScopeAndWindow) {
  const auto load = client_->GetLoad({.mesh = true, .window = absl::Microseconds(1500)});
  ASSERT_TRUE(load.ok()) << load.status();
  auto asked = Asked<v1::GetLoadRequest>();
  EXPECT_EQ(asked.scope(), v1::LOAD_SCOPE_MESH);
  EXPECT_EQ(asked.window_ms(), 2u);
  EXPECT_EQ(load->window, absl::Milliseconds(1250));
  ASSERT_EQ(load->layers.size(), 1u);
  EXPECT_EQ(load->layers[0].compared_tokens, 90u);
  EXPECT_EQ(load->layers[0].changed_tokens, 8u);
  EXPECT_EQ(load->layers[0].node_time, absl::Microseconds(int64_t{1} << 40));
  ASSERT_TRUE(client_->GetLoad().ok());
  asked = Asked<v1::GetLoadRequest>();
  EXPECT_EQ(asked.scope(), v1::LOAD_SCOPE_UNSPECIFIED);
  EXPECT_EQ(asked.window_ms(), 0u);
  // The longest there is, not none at all.
  ASSERT_TRUE(client_->GetLoad({.window = absl::InfiniteDuration()}).ok());
  EXPECT_EQ(Asked<v1::GetLoadRequest>().window_ms(), 0xffffffffu);
}

TEST_F(ClientBalanceTest, WatchesTellWhatIsNewAndNotThatTimePasses) {
  std::vector<uint64_t> seen;
  const auto until = [&seen](uint64_t last) {
    return [&seen, last](const auto& state) {
      seen.push_back(state.epoch);
      return state.epoch != last;
    };
  };
  EXPECT_EQ(client_->WatchBalance(until(99)).code(), absl::StatusCode::kAborted);
  EXPECT_THAT(seen, ElementsAre(1, 2));
  seen.clear();
  EXPECT_TRUE(client_->WatchBalance(until(1)).ok());
  EXPECT_THAT(seen, ElementsAre(1));
  seen.clear();
  EXPECT_EQ(client_->WatchTopology(until(99)).code(), absl::StatusCode::kAborted);
  EXPECT_THAT(seen, ElementsAre(1, 2));
}

}  // namespace
}  // namespace expertmesh::client
