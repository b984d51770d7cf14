// The client against a small server that answers in whatever order, and way, the test wants.
#include "client/cpp/expertmesh/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "client/cpp/library/forward_codec.h"
#include "common/net/grpc_server.h"
#include "common/wire/status.h"
#include "expertmesh/v1/control.grpc.pb.h"
#include "expertmesh/v1/router.grpc.pb.h"
#include "tests/support/compare_rows.h"
#include "tests/support/scripted_watch.h"
#include "tests/support/too_long.h"

namespace expertmesh::client {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

v1::DescribeModelResponse Description() {
  v1::DescribeModelResponse response;
  response.set_family("mixtral");
  response.set_fingerprint("abc");
  response.set_d_model(2);
  response.set_activation_dtype(v1::DTYPE_BF16);
  response.set_max_message_bytes(1000);
  v1::MoeLayer* layer = response.add_layers();
  layer->set_layer(3);
  layer->set_num_experts(8);
  layer->set_experts_per_token(2);
  layer->set_intermediate_size(16);
  layer->set_shared_intermediate_size(4);
  return response;
}

v1::Topology TopologyOf(uint64_t epoch) {
  v1::Topology response;
  response.set_epoch(epoch);
  v1::TopologyNode* node = response.add_nodes();
  node->set_address("host:1");
  node->set_link(v1::NODE_LINK_REFUSED);
  node->set_reason("another model");
  node->set_hidden_states_dtype(v1::DTYPE_BF16);
  node->set_partials_dtype(v1::DTYPE_INT8_BLOCK128);
  v1::DamagedExperts* damaged = node->add_damaged();
  damaged->set_layer(3);
  damaged->add_experts(2);
  damaged->set_reason("other weights");
  node->set_faulty_answers(4);
  node->set_disagreements(5);
  node->set_computed_assignments(600);
  node->set_compute_us(7000);
  node->set_link_us_per_assignment(1.5);
  node->mutable_description()->set_node_id("n1");
  node->mutable_description()->set_state(v1::NODE_STATE_READY);
  v1::HostedExperts* hosted = node->mutable_description()->add_hosted();
  hosted->set_layer(3);
  hosted->add_experts(1);
  hosted->add_experts(2);
  hosted->set_slice_index(1);
  hosted->set_slice_count(2);
  v1::MissingExperts* missing = response.add_missing();
  missing->set_layer(3);
  missing->add_experts(5);
  return response;
}

v1::GetLoadResponse LoadOf(uint64_t tokens) {
  v1::GetLoadResponse response;
  response.set_epoch(7);
  v1::LayerLoad* layer = response.add_layers();
  layer->set_layer(3);
  layer->set_tokens(tokens);
  layer->add_assignments(5);
  layer->add_assignments(0);
  return response;
}

absl::StatusOr<v1::DrainNodeResponse> Drained(const v1::DrainNodeRequest& request) {
  if (request.address() != "host:1") {
    return absl::NotFoundError("no such node");
  }
  v1::DrainNodeResponse response;
  *response.mutable_node() = TopologyOf(7).nodes(0);
  response.mutable_node()->set_link(request.resume() ? v1::NODE_LINK_UP : v1::NODE_LINK_DRAINING);
  response.mutable_node()->set_rows_in_flight(12);
  return response;
}

absl::Status WatchThreeEpochs(net::ServerStreamSink& watcher) {
  for (uint64_t epoch = 1; epoch <= 3; ++epoch) {
    v1::WatchTopologyResponse response;
    *response.mutable_topology() = TopologyOf(epoch);
    if (!net::SendMessage(watcher, response)) {
      return absl::CancelledError("the caller has seen enough");
    }
  }
  return absl::AbortedError("enough");
}

// What the server has received on a stream, and the way back.
class Received {
 public:
  void Open(std::shared_ptr<FrameSink> sink) {
    absl::MutexLock lock(&mutex_);
    sink_ = std::move(sink);
  }
  void Add(const Frame& frame) {
    v1::ForwardRequest request;
    ASSERT_TRUE(request.ParseFromString(frame.Flatten()));
    absl::MutexLock lock(&mutex_);
    requests_.push_back(std::move(request));
  }
  std::vector<v1::ForwardRequest> Await(size_t count) {
    absl::MutexLock lock(&mutex_);
    const auto reached = [this, count]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return requests_.size() >= count;
    };
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&reached), kTooLong));
    return requests_;
  }
  void Send(Frame frame) {
    absl::MutexLock lock(&mutex_);
    ASSERT_TRUE(sink_->Send(std::move(frame)).ok());
  }
  void Send(const v1::ForwardResponse& response) { Send(Frame(response.SerializeAsString())); }
  // No more answers: the stream ends once the client has closed or the server stops.
  void Drop() {
    absl::MutexLock lock(&mutex_);
    sink_ = nullptr;
  }

 private:
  absl::Mutex mutex_;
  std::shared_ptr<FrameSink> sink_ ABSL_GUARDED_BY(mutex_);
  std::vector<v1::ForwardRequest> requests_ ABSL_GUARDED_BY(mutex_);
};

class Recorder final : public StreamHandler {
 public:
  explicit Recorder(Received* received) : received_(received) {}
  void OnFrame(Frame frame) override { received_->Add(frame); }

 private:
  Received* const received_;
};

// One answer, which must come exactly once.
class Answer {
 public:
  ForwardCallback callback() {
    return [this](absl::StatusOr<ForwardResult> result) {
      absl::MutexLock lock(&mutex_);
      EXPECT_FALSE(result_.has_value()) << "answered twice";
      result_ = std::move(result);
    };
  }
  absl::StatusOr<ForwardResult> Await() {
    absl::MutexLock lock(&mutex_);
    const auto answered = [this]()
                              ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return result_.has_value(); };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&answered), kTooLong)) {
      return absl::InternalError("no answer");
    }
    return *result_;
  }
  bool has_value() {
    absl::MutexLock lock(&mutex_);
    return result_.has_value();
  }

 private:
  absl::Mutex mutex_;
  std::optional<absl::StatusOr<ForwardResult>> result_ ABSL_GUARDED_BY(mutex_);
};

// An answer whose output is what was asked, with its bytes as they came.
v1::ForwardResponse Echo(const v1::ForwardRequest& request) {
  v1::ForwardResponse response;
  response.set_request_id(request.request_id());
  *response.mutable_output() = request.hidden_states();
  return response;
}

Matrix Rows(std::vector<float> values) { return Matrix::Take(values.size() / 2, 2, values); }

class ClientTest : public testing::Test {
 protected:
  // `unary` answers unary calls; streams are recorded in `received_`.
  void Serve(std::function<absl::StatusOr<Frame>(const v1::ForwardRequest&)> unary = nullptr) {
    net::GrpcServerSpec spec;
    spec.address = "127.0.0.1:0";
    spec.unary = {{"/expertmesh.v1.Router/Forward",
                   [unary](const Frame& frame, const CallContextPtr&, net::UnaryResponder respond) {
                     v1::ForwardRequest request;
                     ASSERT_TRUE(request.ParseFromString(frame.Flatten()));
                     if (unary) {
                       respond(unary(request));
                     } else {
                       respond(Frame(Echo(request).SerializeAsString()));
                     }
                   }}};
    spec.streams = {{"/expertmesh.v1.Router/ForwardStream",
                     [this](std::shared_ptr<FrameSink> sink, const CallContextPtr&) {
                       received_.Open(std::move(sink));
                       return std::make_unique<Recorder>(&received_);
                     }}};
    spec.ordinary = {net::OrdinaryMethod<v1::DescribeModelRequest, v1::DescribeModelResponse>(
                         "/expertmesh.v1.Router/DescribeModel",
                         [](const v1::DescribeModelRequest&) { return Description(); }),
                     net::OrdinaryMethod<v1::GetTopologyRequest, v1::GetTopologyResponse>(
                         "/expertmesh.v1.Control/GetTopology",
                         [](const v1::GetTopologyRequest&) {
                           v1::GetTopologyResponse response;
                           *response.mutable_topology() = TopologyOf(7);
                           return response;
                         }),
                     net::OrdinaryMethod<v1::GetLoadRequest, v1::GetLoadResponse>(
                         "/expertmesh.v1.Control/GetLoad",
                         [](const v1::GetLoadRequest&) { return LoadOf(uint64_t{1} << 40); }),
                     net::OrdinaryMethod<v1::DrainNodeRequest, v1::DrainNodeResponse>(
                         "/expertmesh.v1.Control/DrainNode", &Drained)};
    spec.streams.push_back(
        net::ScriptedWatch("/expertmesh.v1.Control/WatchTopology", &WatchThreeEpochs));
    auto server = net::GrpcServer::Start(std::move(spec));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    auto client = Client::Connect("127.0.0.1:" + std::to_string(server_->port()));
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
  }
  ~ClientTest() override { received_.Drop(); }

  Received received_;
  std::unique_ptr<net::GrpcServer> server_;
  std::unique_ptr<Client> client_;
};

TEST_F(ClientTest, UnaryCarriesEveryFieldBothWays) {
  Serve([](const v1::ForwardRequest& request) -> absl::StatusOr<Frame> {
    EXPECT_EQ(request.layer(), 3u);
    EXPECT_EQ(request.traceparent(), "00-trace");
    EXPECT_EQ(request.tracestate(), "state");
    EXPECT_TRUE(request.return_routing());
    EXPECT_EQ(request.output_dtype(), v1::DTYPE_F16);
    EXPECT_EQ(request.timeout_us(), 20'000'000);
    EXPECT_EQ(request.hidden_states().dtype(), v1::DTYPE_F32);
    EXPECT_THAT(request.group_sizes(), ElementsAre(1));
    EXPECT_THAT(request.token_ids(), ElementsAre(77));
    EXPECT_TRUE(request.has_routing_seed());
    EXPECT_EQ(request.routing_seed(), 0u);
    EXPECT_EQ(request.select_bias(), v1::SELECT_BIAS_CHECKPOINT);
    v1::ForwardResponse response = Echo(request);
    response.set_epoch(9);
    response.mutable_routing()->set_experts_per_token(2);
    for (const uint32_t expert : {4u, 1u}) {
      response.mutable_routing()->add_expert_ids(expert);
      response.mutable_routing()->add_expert_weights(0.5f);
    }
    v1::ForwardTiming& timing = *response.mutable_timing();
    timing.set_queue_us(10);
    timing.set_route_us(11);
    timing.set_experts_us(12);
    timing.set_combine_us(13);
    timing.set_batch_tokens(14);
    timing.set_nodes(3);
    timing.set_node_queue_us(15);
    timing.set_node_compute_us(uint64_t{1} << 40);
    return Frame(response.SerializeAsString());
  });
  ForwardOptions options;
  options.timeout = absl::Seconds(20);
  options.traceparent = "00-trace";
  options.tracestate = "state";
  options.return_routing = true;
  options.output_dtype = Dtype::kFloat16;
  options.group_sizes = {1};
  options.token_ids = {77};
  options.routing_seed = 0;
  options.checkpoint_bias = true;
  const auto result = client_->Forward(3, Rows({1, 2}), options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->output.rows(), 1u);
  EXPECT_EQ(result->output.cols(), 2u);
  EXPECT_THAT(result->output.ToFloats(), ElementsAre(1, 2));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(result->output.As<float>()) % 64, 0u);
  EXPECT_THAT(result->routing.expert_ids, ElementsAre(4, 1));
  EXPECT_THAT(result->routing.expert_weights, ElementsAre(0.5f, 0.5f));
  EXPECT_EQ(result->epoch, 9u);
  EXPECT_EQ(result->timing.queue_us, 10u);
  EXPECT_EQ(result->timing.route_us, 11u);
  EXPECT_EQ(result->timing.experts_us, 12u);
  EXPECT_EQ(result->timing.combine_us, 13u);
  EXPECT_EQ(result->timing.batch_tokens, 14u);
  EXPECT_EQ(result->timing.nodes, 3u);
  EXPECT_EQ(result->timing.node_queue_us, 15u);
  EXPECT_EQ(result->timing.node_compute_us, uint64_t{1} << 40);
}

TEST_F(ClientTest, RaggedRoutingAndDroppedAssignments) {
  Serve([](const v1::ForwardRequest& request) -> absl::StatusOr<Frame> {
    EXPECT_FALSE(request.has_routing_seed());
    EXPECT_EQ(request.select_bias(), v1::SELECT_BIAS_UNSPECIFIED);
    v1::ForwardResponse response = Echo(request);
    for (const uint32_t count : {2u, 0u, 1u}) {
      response.mutable_routing()->add_assignments_per_token(count);
    }
    for (const uint32_t expert : {4u, 1u, 3u}) {
      response.mutable_routing()->add_expert_ids(expert);
      response.mutable_routing()->add_expert_weights(0.5f);
    }
    response.add_dropped()->set_token(1);
    response.mutable_dropped(0)->set_expert(4);
    if (request.layer() == 1) {
      response.mutable_dropped(0)->set_token(3);
    } else if (request.layer() == 2) {
      response.mutable_routing()->mutable_expert_ids()->RemoveLast();
    } else if (request.layer() == 3) {
      response.mutable_routing()->mutable_assignments_per_token()->RemoveLast();
    }
    return Frame(response.SerializeAsString());
  });
  const auto forward = [this](uint32_t layer) {
    return client_->Forward(layer, Matrix::Take(3, 2, {1, 2, 3, 4, 5, 6}));
  };
  const auto result = forward(0);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->routing.experts_per_token, 0u);
  EXPECT_THAT(result->routing.assignments_per_token, ElementsAre(2, 0, 1));
  EXPECT_THAT(result->routing.expert_ids, ElementsAre(4, 1, 3));
  ASSERT_EQ(result->dropped.size(), 1u);
  EXPECT_EQ(result->dropped[0].token, 1u);
  EXPECT_EQ(result->dropped[0].expert, 4u);
  for (const auto& [layer, words] : {std::pair<uint32_t, const char*>{1, "dropped token 3 of 3"},
                                     {2, "2 expert_ids"},
                                     {3, "2 assignments_per_token for 3 tokens"}}) {
    const absl::Status status = forward(layer).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(status.message(), HasSubstr(words));
  }
}

TEST_F(ClientTest, ResultsOutliveTheClient) {
  Serve();
  const auto result = client_->Forward(0, Rows({5, 6}));
  client_.reset();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->output.ToFloats(), ElementsAre(5, 6));
}

TEST_F(ClientTest, ZeroTokensAndEveryDtypePass) {
  Serve();
  const auto none = client_->Forward(0, Matrix::Take(0, 2, {}));
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_EQ(none->output.rows(), 0u);
  const auto half = client_->Forward(0, Matrix::Take(Dtype::kBFloat16, 1, 2, {0, 63, 0, 64}));
  ASSERT_TRUE(half.ok()) << half.status();
  EXPECT_EQ(half->output.dtype(), Dtype::kBFloat16);
  EXPECT_THAT(half->output.ToFloats(), ElementsAre(0.5f, 2.0f));
}

TEST_F(ClientTest, ARequestOverTheLimitIsRefusedBeforeSendingAndNamesTheField) {
  Serve();
  ClientOptions options;
  options.max_message_bytes = 10'000;
  const auto client = Client::Connect("127.0.0.1:" + std::to_string(server_->port()), options);
  ASSERT_TRUE(client.ok()) << client.status();
  ForwardOptions many;
  many.token_ids.assign(20'000, 1);
  Answer answer;
  (*client)->OpenStream()->Send(0, Matrix::Take(1, 2, {1, 2}), many, answer.callback());
  for (const absl::Status& status :
       {(*client)->Forward(0, Matrix::Take(1, 2, {1, 2}), many).status(),
        answer.Await().status()}) {
    EXPECT_EQ(DetailsOf(status).reason, "MESSAGE_TOO_LARGE");
    EXPECT_THAT(std::string(status.message()),
                testing::AllOf(HasSubstr("the limit is 10000"), HasSubstr("token_ids alone has"),
                               HasSubstr("max_message_bytes")));
  }
}

TEST_F(ClientTest, WrongByteCountsAreRefusedBeforeSending) {
  Serve();
  const auto result = client_->Forward(0, Matrix::Take(2, 2, {1, 2, 3}));
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(result.status().message(), HasSubstr("[2, 2]"));
  EXPECT_THAT(result.status().message(), HasSubstr("12 bytes"));
  // Such that the product overflows to what is there.
  const Matrix huge = Matrix::Take(Dtype::kFloat32, size_t{1} << 62, 1, "");
  EXPECT_EQ(client_->Forward(0, huge).status().code(), absl::StatusCode::kInvalidArgument);
  Answer answer;
  client_->OpenStream()->Send(0, huge, {}, answer.callback());
  EXPECT_EQ(answer.Await().status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ClientTest, UnaryErrorsKeepCodeAndMessage) {
  Serve([](const v1::ForwardRequest&) -> absl::StatusOr<Frame> {
    return absl::UnavailableError("layer 3: no node for experts 1-2");
  });
  const auto result = client_->Forward(3, Rows({1, 2}));
  EXPECT_EQ(result.status(), absl::UnavailableError("layer 3: no node for experts 1-2"));
}

TEST_F(ClientTest, AnswersThatContradictThemselvesAreInternalErrors) {
  // The layer asked for chooses the answer: without output, one byte short, whole, and with routing
  // that has no experts.
  Serve([](const v1::ForwardRequest& request) -> absl::StatusOr<Frame> {
    v1::ForwardResponse answer;
    if (request.layer() > 0) {
      answer.mutable_output()->set_dtype(v1::DTYPE_F32);
      answer.mutable_output()->add_shape(1);
      answer.mutable_output()->add_shape(2);
      answer.mutable_output()->set_data(request.layer() == 1 ? "1234567" : "12345678");
    }
    if (request.layer() == 3) {
      answer.mutable_routing()->set_experts_per_token(2);
    }
    return Frame(answer.SerializeAsString());
  });
  const auto code = [this](uint32_t layer) {
    return client_->Forward(layer, Rows({1, 2})).status().code();
  };
  EXPECT_EQ(code(0), absl::StatusCode::kInternal);
  EXPECT_EQ(code(1), absl::StatusCode::kInternal);
  EXPECT_EQ(code(2), absl::StatusCode::kOk);
  EXPECT_EQ(code(3), absl::StatusCode::kInternal);
}

TEST_F(ClientTest, NobodyThereIsUnavailableAtOnce) {
  Serve();
  server_->Shutdown(absl::ZeroDuration());
  EXPECT_EQ(client_->Forward(0, Rows({1, 2})).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(client_->DescribeModel().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(client_->Health().status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ClientTest, AddressesThatMakeNoSenseAreRefused) {
  EXPECT_EQ(Client::Connect("").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Client::Connect("host").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ClientTest, StreamMatchesAnswersInAnyOrder) {
  Serve();
  const auto stream = client_->OpenStream();
  Answer answers[3];
  for (int i = 0; i < 3; ++i) {
    const float value = static_cast<float>(i);
    stream->Send(static_cast<uint32_t>(i), Rows({value, value}), {}, answers[i].callback());
  }
  const auto requests = received_.Await(3);
  for (const int i : {2, 0, 1}) {
    EXPECT_EQ(stream->InFlight(), i == 2 ? 3u : i == 0 ? 2u : 1u);
    received_.Send(Echo(requests[static_cast<size_t>(i)]));
    const uint32_t layer = requests[static_cast<size_t>(i)].layer();
    const auto result = answers[layer].Await();
    ASSERT_TRUE(result.ok()) << result.status();
    const float value = static_cast<float>(layer);
    EXPECT_THAT(result->output.ToFloats(), ElementsAre(value, value));
  }
  EXPECT_EQ(stream->InFlight(), 0u);
}

TEST_F(ClientTest, AnErrorOfOneRequestLeavesTheOthersAlone) {
  Serve();
  const auto stream = client_->OpenStream();
  Answer bad;
  Answer good;
  stream->Send(9, Rows({1, 2}), {}, bad.callback());
  stream->Send(1, Rows({1, 2}), {}, good.callback());
  const auto requests = received_.Await(2);
  v1::ForwardResponse error;
  error.set_request_id(requests[0].request_id());
  *error.mutable_status() = ToWire(absl::InvalidArgumentError("layer: 9"));
  received_.Send(error);
  // An answer to a request that is no longer pending does no harm.
  received_.Send(error);
  received_.Send(Echo(requests[1]));
  EXPECT_EQ(bad.Await().status(), absl::InvalidArgumentError("layer: 9"));
  EXPECT_TRUE(good.Await().ok());
  EXPECT_TRUE(stream->status().ok());
}

TEST_F(ClientTest, ABrokenStreamAnswersEveryRequestOnceAndTakesNoMore) {
  Serve();
  const auto stream = client_->OpenStream();
  Answer answers[3];
  for (Answer& answer : answers) {
    stream->Send(1, Rows({1, 2}), {}, answer.callback());
  }
  const auto requests = received_.Await(3);
  received_.Send(Echo(requests[1]));
  EXPECT_TRUE(answers[1].Await().ok());
  server_->Shutdown(absl::ZeroDuration());
  EXPECT_EQ(answers[0].Await().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(answers[2].Await().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(answers[2].Await().status().message(), HasSubstr("127.0.0.1:"));
  Answer late;
  stream->Send(1, Rows({1, 2}), {}, late.callback());
  EXPECT_TRUE(late.has_value());
  EXPECT_EQ(late.Await().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(stream->status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ClientTest, AnUnreadableAnswerBreaksTheStream) {
  Serve();
  const auto stream = client_->OpenStream();
  Answer answer;
  stream->Send(1, Rows({1, 2}), {}, answer.callback());
  received_.Await(1);
  received_.Send(Frame(std::string("\xff\xff\xff")));
  EXPECT_EQ(answer.Await().status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ClientTest, StreamedRequestsTimeOutHereAndIgnoreTheLateAnswer) {
  Serve();
  const auto stream = client_->OpenStream();
  Answer slow;
  Answer other;
  ForwardOptions options;
  options.timeout = absl::Milliseconds(500);  // Not over before it is sent.
  stream->Send(1, Rows({1, 2}), options, slow.callback());
  stream->Send(1, Rows({1, 2}), {}, other.callback());
  EXPECT_EQ(slow.Await().status().code(), absl::StatusCode::kDeadlineExceeded);
  const auto requests = received_.Await(2);
  EXPECT_EQ(requests[0].timeout_us(), 500'000);
  EXPECT_FALSE(requests[1].has_timeout_us());
  received_.Send(Echo(requests[0]));
  received_.Send(Echo(requests[1]));
  EXPECT_TRUE(other.Await().ok());
}

TEST_F(ClientTest, DestroyingAStreamCancelsWhatIsInFlight) {
  Serve();
  auto stream = client_->OpenStream();
  Answer answer;
  stream->Send(1, Rows({1, 2}), {}, answer.callback());
  received_.Await(1);
  stream.reset();
  EXPECT_TRUE(answer.has_value());
  EXPECT_EQ(answer.Await().status().code(), absl::StatusCode::kCancelled);
}

TEST_F(ClientTest, CallbacksMaySendMore) {
  Serve();
  const auto stream = client_->OpenStream();
  Answer second;
  stream->Send(1, Rows({1, 2}), {}, [&](const absl::StatusOr<ForwardResult>& first) {
    EXPECT_TRUE(first.ok()) << first.status();
    stream->Send(2, first.ok() ? first->output : Matrix(), {}, second.callback());
  });
  received_.Send(Echo(received_.Await(1)[0]));
  received_.Send(Echo(received_.Await(2)[1]));
  const auto result = second.Await();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->output.ToFloats(), ElementsAre(1, 2));
}

constexpr uint64_t kLimit = 1 << 20;

TEST(ForwardCodecTest, RequestsShareTheCallersBytes) {
  const std::string bytes(1 << 16, 'x');
  const auto owner = std::make_shared<int>(0);
  const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
  auto frame = EncodeForward(
      1, 2, Matrix::Share(Dtype::kBFloat16, 1 << 14, 2, {data, bytes.size()}, owner), {}, kLimit);
  ASSERT_TRUE(frame.ok()) << frame.status();
  EXPECT_EQ(frame->slices().back().data(), data);
  EXPECT_EQ(owner.use_count(), 2);
  frame = Frame();
  EXPECT_EQ(owner.use_count(), 1);
}

// A row of 130 values is two blocks: 127 times 0.5, and 2 values of which the larger is 1.
TEST(ForwardCodecTest, RowsTravelAsInt8WhenAskedTo) {
  std::vector<float> values(130, 63.5f);
  values[128] = -1;
  values[129] = 0.5f;
  ForwardOptions options;
  options.int8_hidden_states = true;
  options.int8_output = true;
  const auto frame = EncodeForward(1, 2, Matrix::Take(1, 130, values), options, kLimit);
  ASSERT_TRUE(frame.ok()) << frame.status();
  v1::ForwardRequest request;
  ASSERT_TRUE(request.ParseFromString(frame->Flatten()));
  EXPECT_EQ(request.output_dtype(), v1::DTYPE_INT8_BLOCK128);
  EXPECT_EQ(request.hidden_states().dtype(), v1::DTYPE_INT8_BLOCK128);
  EXPECT_EQ(request.hidden_states().data(), std::string(128, 127) + "\x81\x40");

  v1::ForwardResponse response;
  response.mutable_status();
  *response.mutable_output() = request.hidden_states();
  const auto answer = DecodeForward(Frame(response.SerializeAsString()));
  ASSERT_TRUE(answer.ok()) << answer.status();
  ASSERT_TRUE(answer->result.ok()) << answer->result.status();
  EXPECT_EQ(answer->result->output.dtype(), Dtype::kFloat32);
  const std::vector<float> output = answer->result->output.ToFloats();
  // Half of a block's scale.
  const auto bound = [](size_t i) { return (i < 128 ? 63.5f : 1.0f) / 127 / 2; };
  EXPECT_TRUE(RowsNear(output, values, 130, bound));
}

// Not that of the int8 rows, which the router would take.
TEST(ForwardCodecTest, Int8RowsAreAnsweredInTheTypeOfTheHiddenStates) {
  ForwardOptions options;
  options.int8_hidden_states = true;
  const auto frame =
      EncodeForward(1, 2, Matrix::Take(1, 1, std::vector<float>{1}), options, kLimit);
  ASSERT_TRUE(frame.ok()) << frame.status();
  v1::ForwardRequest request;
  ASSERT_TRUE(request.ParseFromString(frame->Flatten()));
  EXPECT_EQ(request.output_dtype(), v1::DTYPE_F32);
}

TEST(ForwardCodecTest, AnInt8OutputHasNoOtherType) {
  ForwardOptions options;
  options.int8_output = true;
  options.output_dtype = Dtype::kBFloat16;
  const auto frame =
      EncodeForward(1, 2, Matrix::Take(1, 1, std::vector<float>{1}), options, kLimit);
  EXPECT_EQ(frame.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(frame.status().message()), HasSubstr("output_dtype"));
}

TEST_F(ClientTest, DescribesTheModel) {
  Serve();
  const auto model = client_->DescribeModel();
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->family, "mixtral");
  EXPECT_EQ(model->fingerprint, "abc");
  EXPECT_EQ(model->d_model, 2u);
  EXPECT_EQ(model->activation_dtype, Dtype::kBFloat16);
  EXPECT_EQ(model->max_message_bytes, 1000u);
  ASSERT_EQ(model->layers.size(), 1u);
  EXPECT_EQ(model->layers[0].layer, 3u);
  EXPECT_EQ(model->layers[0].num_experts, 8u);
  EXPECT_EQ(model->layers[0].experts_per_token, 2u);
  EXPECT_EQ(model->layers[0].intermediate_size, 16u);
  EXPECT_EQ(model->layers[0].shared_intermediate_size, 4u);
}

TEST_F(ClientTest, ShowsTheTopology) {
  Serve();
  const auto topology = client_->Topology();
  ASSERT_TRUE(topology.ok()) << topology.status();
  EXPECT_EQ(topology->epoch, 7u);
  EXPECT_FALSE(topology->ready);
  ASSERT_EQ(topology->nodes.size(), 1u);
  const NodeInfo& node = topology->nodes[0];
  EXPECT_EQ(node.address, "host:1");
  EXPECT_EQ(node.link, Link::kRefused);
  EXPECT_EQ(node.reason, "another model");
  EXPECT_EQ(node.state, "ready");
  EXPECT_EQ(node.hidden_states_dtype, "bf16");
  EXPECT_EQ(node.partials_dtype, "int8");
  ASSERT_EQ(node.damaged.size(), 1u);
  EXPECT_EQ(node.damaged[0].layer, 3u);
  EXPECT_THAT(node.damaged[0].experts, ElementsAre(2));
  EXPECT_EQ(node.damaged[0].reason, "other weights");
  EXPECT_EQ(node.faulty_answers, 4u);
  EXPECT_EQ(node.disagreements, 5u);
  EXPECT_EQ(node.computed_assignments, 600u);
  EXPECT_EQ(node.compute_time, absl::Milliseconds(7));
  EXPECT_EQ(node.link_time_per_assignment, absl::Nanoseconds(1500));
  ASSERT_EQ(node.hosted.size(), 1u);
  EXPECT_THAT(node.hosted[0].experts, ElementsAre(1, 2));
  EXPECT_EQ(node.hosted[0].slice_index, 1u);
  EXPECT_EQ(node.hosted[0].slice_count, 2u);
  ASSERT_EQ(topology->missing.size(), 1u);
  EXPECT_THAT(topology->missing[0].experts, ElementsAre(5));
}

TEST_F(ClientTest, ShowsTheLoad) {
  Serve();
  const auto load = client_->GetLoad();
  ASSERT_TRUE(load.ok()) << load.status();
  EXPECT_EQ(load->epoch, 7u);
  ASSERT_EQ(load->layers.size(), 1u);
  EXPECT_EQ(load->layers[0].layer, 3u);
  EXPECT_EQ(load->layers[0].tokens, uint64_t{1} << 40);
  EXPECT_THAT(load->layers[0].assignments, ElementsAre(5, 0));
}

TEST_F(ClientTest, DrainsANodeAndResumesIt) {
  Serve();
  const auto drained = client_->DrainNode("host:1");
  ASSERT_TRUE(drained.ok()) << drained.status();
  EXPECT_EQ(drained->link, Link::kDraining);
  EXPECT_EQ(drained->node_id, "n1");
  EXPECT_EQ(drained->rows_in_flight, 12u);
  EXPECT_EQ(client_->DrainNode("host:1", true)->link, Link::kUp);
  EXPECT_EQ(client_->DrainNode("host:2").status(), absl::NotFoundError("no such node"));
}

TEST_F(ClientTest, WatchesTheTopologyUntilToldOtherwiseOrTheEnd) {
  Serve();
  std::vector<uint64_t> seen;
  const auto until = [&seen](uint64_t last) {
    return [&seen, last](const expertmesh::client::Topology& topology) {
      seen.push_back(topology.epoch);
      return topology.epoch != last;
    };
  };
  EXPECT_TRUE(client_->WatchTopology(until(2)).ok());
  EXPECT_THAT(seen, ElementsAre(1, 2));
  seen.clear();
  EXPECT_EQ(client_->WatchTopology(until(99)).code(), absl::StatusCode::kAborted);
  EXPECT_THAT(seen, ElementsAre(1, 2, 3));
}

TEST_F(ClientTest, AsksForHealth) {
  Serve();
  EXPECT_EQ(client_->Health(), absl::StatusOr<bool>(true));
  server_->SetServing("", false);
  EXPECT_EQ(client_->Health(), absl::StatusOr<bool>(false));
  server_->SetServing("expertmesh.v1.Router", true);
  EXPECT_EQ(client_->Health("expertmesh.v1.Router"), absl::StatusOr<bool>(true));
  EXPECT_EQ(client_->Health("nothing").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace expertmesh::client
