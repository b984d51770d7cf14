// Checks what C++'s gRPC can do with a router: one line for each of the columns.
//
//   check ROUTER GOLDEN_DIR
#include <grpcpp/grpcpp.h>
#include <grpcpp/support/error_details.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "expertmesh/v1/control.grpc.pb.h"
#include "expertmesh/v1/router.grpc.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpc/reflection/v1/reflection.grpc.pb.h"
#include "tensors.h"

namespace em = expertmesh::v1;
namespace health = grpc::health::v1;
namespace reflection = grpc::reflection::v1;

namespace {

constexpr auto kTimeout = std::chrono::seconds(60);
constexpr size_t kBigBytes = 60'000'000;

// Every call has a deadline.
struct Context : grpc::ClientContext {
  Context() { set_deadline(std::chrono::system_clock::now() + kTimeout); }
};

void Require(bool condition, const std::string& said) {
  if (!condition) {
    throw std::runtime_error(said);
  }
}

void Require(const grpc::Status& status) {
  Require(status.ok(),
          "code " + std::to_string(status.error_code()) + ": " + status.error_message());
}

// Fails unless a status says that the layer is wrong.
void RequireNamesLayer(const google::rpc::Status& status) {
  google::rpc::ErrorInfo info;
  google::rpc::BadRequest request;
  for (const auto& detail : status.details()) {
    detail.UnpackTo(&info) || detail.UnpackTo(&request);
  }
  Require(status.code() == grpc::StatusCode::INVALID_ARGUMENT && info.reason() == "INVALID_FIELD" &&
              request.field_violations_size() == 1 &&
              request.field_violations(0).field() == "layer",
          status.ShortDebugString());
}

// Sends messages on a stream and returns all answers.
template <typename Stream, typename Request, typename Answer>
void Exchange(Stream& stream, const std::vector<Request>& requests, std::vector<Answer>* answers) {
  for (const Request& request : requests) {
    Require(stream.Write(request), "the stream ended early");
  }
  stream.WritesDone();
  for (Answer answer; stream.Read(&answer);) {
    answers->push_back(answer);
  }
  Require(stream.Finish());
}

// A method for each column.
class Checker {
 public:
  Checker(const std::string& address, const std::string& golden)
      : channel_(Connect(address)),
        router_(em::Router::NewStub(channel_)),
        hidden_states_(PackF32(ReadF32(golden + "/hidden_states.f32"))),
        expected_(ReadF32(golden + "/output.f32")) {}

  void Unary() {
    Context context;
    em::DescribeModelResponse model;
    Require(router_->DescribeModel(&context, em::DescribeModelRequest(), &model));
    Require(model.layers_size() > 0, "the model has no layer");
    layer_ = model.layers(0).layer();
    d_model_ = model.d_model();
  }

  void Stream() {
    std::vector<uint64_t> ids;
    const auto answers =
        ForwardStream({Request(1, layer_, hidden_states_), Request(2, layer_, hidden_states_),
                       Request(3, layer_, hidden_states_)});
    for (const em::ForwardResponse& answer : answers) {
      RequireGolden(answer.output().data());
      ids.push_back(answer.request_id());
    }
    std::sort(ids.begin(), ids.end());
    Require(ids == std::vector<uint64_t>{1, 2, 3}, std::to_string(ids.size()) + " answers");
  }

  void Watch() {
    Context context;
    const auto control = em::Control::NewStub(channel_);
    const auto watch = control->WatchTopology(&context, em::WatchTopologyRequest());
    em::WatchTopologyResponse first;
    Require(watch->Read(&first), "the stream ended");
    context.TryCancel();
    Require(first.topology().ready() && first.topology().nodes_size() > 0,
            first.ShortDebugString());
  }

  void Health() {
    const auto stub = health::Health::NewStub(channel_);
    for (const char* service : {"", "ready", "expertmesh.v1.Control"}) {
      Context context;
      health::HealthCheckRequest request;
      health::HealthCheckResponse response;
      request.set_service(service);
      Require(stub->Check(&context, request, &response));
      Require(response.status() == health::HealthCheckResponse::SERVING,
              std::string(service) + ": " + response.ShortDebugString());
    }
  }

  void Reflection() {
    Context context;
    reflection::ServerReflectionRequest request;
    request.set_list_services("");
    const auto stub = reflection::ServerReflection::NewStub(channel_);
    const auto stream = stub->ServerReflectionInfo(&context);
    std::vector<reflection::ServerReflectionResponse> answers;
    Exchange(*stream, std::vector{request}, &answers);
    Require(answers.size() == 1, std::to_string(answers.size()) + " answers");
    const auto& services = answers[0].list_services_response().service();
    Require(std::any_of(services.begin(), services.end(),
                        [](const auto& one) { return one.name() == "expertmesh.v1.Router"; }),
            "no Router in " + answers[0].ShortDebugString());
  }

  // A message of 60 MB on the way there and back: the golden tokens, over and over.
  void Big() {
    std::string data;
    while (data.size() + hidden_states_.size() <= kBigBytes) {
      data += hidden_states_;
    }
    const std::string output = Forward(data);
    Require(output.size() == data.size(), std::to_string(output.size()) + " bytes");
    RequireGolden(output.substr(0, hidden_states_.size()));
    RequireGolden(output.substr(output.size() - hidden_states_.size()));
  }

  void Errors() {
    const auto wrong = Request(1, layer_ + 1000, std::string(4 * d_model_, '\0'));
    Context context;
    em::ForwardResponse response;
    google::rpc::Status status;
    Require(grpc::ExtractErrorDetails(router_->Forward(&context, wrong, &response), &status));
    RequireNamesLayer(status);
    const auto answers = ForwardStream({wrong});
    Require(answers.size() == 1, std::to_string(answers.size()) + " answers");
    status.ParseFromString(answers[0].status().SerializeAsString());
    RequireNamesLayer(status);
  }

  void Bits() { RequireGolden(Forward(hidden_states_)); }

 private:
  static std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
  }

  em::ForwardRequest Request(uint64_t id, uint32_t layer, const std::string& data) const {
    em::ForwardRequest request;
    request.set_request_id(id);
    request.set_layer(layer);
    em::Tensor& tensor = *request.mutable_hidden_states();
    tensor.set_dtype(em::DTYPE_F32);
    tensor.add_shape(data.size() / sizeof(float) / d_model_);
    tensor.add_shape(d_model_);
    tensor.set_data(data);
    return request;
  }

  std::string Forward(const std::string& data) const {
    Context context;
    em::ForwardResponse response;
    Require(router_->Forward(&context, Request(0, layer_, data), &response));
    return response.output().data();
  }

  std::vector<em::ForwardResponse> ForwardStream(
      const std::vector<em::ForwardRequest>& requests) const {
    Context context;
    std::vector<em::ForwardResponse> answers;
    Exchange(*router_->ForwardStream(&context), requests, &answers);
    return answers;
  }

  void RequireGolden(const std::string& data) const {
    const std::vector<float> actual = UnpackF32(data);
    Require(actual.size() == expected_.size(), std::to_string(actual.size()) + " values");
    const Worst worst = WorstError(actual, expected_, d_model_);
    Require(worst.error <= 1e-5,
            "error " + std::to_string(worst.error) + " at token " + std::to_string(worst.token));
  }

  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<em::Router::Stub> router_;
  std::string hidden_states_;
  std::vector<float> expected_;
  uint32_t layer_ = 0;
  size_t d_model_ = 1;
};

// True when no column is "no".
bool Run(Checker& checker) {
  const struct {
    const char* name;
    void (Checker::*check)();
  } columns[] = {{"unary", &Checker::Unary},           {"stream", &Checker::Stream},
                 {"watch", &Checker::Watch},           {"health", &Checker::Health},
                 {"reflection", &Checker::Reflection}, {"big", &Checker::Big},
                 {"errors", &Checker::Errors},         {"bits", &Checker::Bits}};
  bool good = true;
  for (const auto& column : columns) {
    try {
      (checker.*column.check)();
      std::printf("%s yes\n", column.name);
    } catch (const std::exception& error) {
      std::string why = error.what();
      std::replace(why.begin(), why.end(), '\n', ' ');
      std::printf("%s no: %s\n", column.name, why.c_str());
      good = false;
    }
  }
  return good;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: check ROUTER GOLDEN_DIR\n");
    return 2;
  }
  try {
    Checker checker(argv[1], argv[2]);
    return Run(checker) ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
