// Calls a router through generated C++ stubs, and compares its answers with golden ones.
//
//   forward ROUTER GOLDEN_DIR
//
// The library expertmesh::client (client/cpp) does this with less to write, and more. This program
// shows what is on the wire.
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include "expertmesh/v1/router.grpc.pb.h"
#include "tensors.h"

namespace em = expertmesh::v1;

namespace {

constexpr auto kTimeout = std::chrono::seconds(30);

void Check(const grpc::Status& status) {
  if (!status.ok()) {
    throw std::runtime_error("code " + std::to_string(status.error_code()) + ": " +
                             status.error_message());
  }
}

// Sends `values` as `sent` and returns the answer, asked for as `answered`.
std::vector<float> Forward(em::Router::Stub& router, uint32_t layer,
                           const std::vector<float>& values, size_t d_model, em::Dtype sent,
                           em::Dtype answered) {
  em::ForwardRequest request;
  request.set_layer(layer);
  request.set_output_dtype(answered);
  em::Tensor& tensor = *request.mutable_hidden_states();
  tensor.set_dtype(sent);
  tensor.add_shape(values.size() / d_model);
  tensor.add_shape(d_model);
  tensor.set_data(sent == em::DTYPE_F32 ? PackF32(values) : PackBf16(values));

  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kTimeout);
  em::ForwardResponse response;
  Check(router.Forward(&context, request, &response));
  const em::Tensor& output = response.output();
  return output.dtype() == em::DTYPE_F32 ? UnpackF32(output.data()) : UnpackBf16(output.data());
}

// True when every answer is within its tolerance.
bool Run(const std::string& address, const std::string& golden) {
  grpc::ChannelArguments arguments;
  // Tensors are larger than gRPC's default limit of 4 MiB for a message received.
  arguments.SetMaxReceiveMessageSize(-1);
  const auto router = em::Router::NewStub(
      grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));

  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kTimeout);
  em::DescribeModelResponse model;
  Check(router->DescribeModel(&context, em::DescribeModelRequest(), &model));
  const uint32_t layer = model.layers(0).layer();
  std::printf("%s: %s, d_model %u, first MoE layer %u\n", address.c_str(), model.family().c_str(),
              model.d_model(), layer);

  const struct {
    em::Dtype sent, answered;
    const char* expected;
    double tolerance;
  } cases[] = {{em::DTYPE_F32, em::DTYPE_F32, "output.f32", 1e-5},
               {em::DTYPE_BF16, em::DTYPE_F32, "output_of_bf16_input.f32", 1e-5},
               {em::DTYPE_BF16, em::DTYPE_BF16, "output_of_bf16_input.f32", 1e-2}};
  const std::vector<float> hidden_states = ReadF32(golden + "/hidden_states.f32");
  bool good = true;
  for (const auto& one : cases) {
    const std::vector<float> actual =
        Forward(*router, layer, hidden_states, model.d_model(), one.sent, one.answered);
    const std::vector<float> expected = ReadF32(golden + "/" + one.expected);
    if (actual.size() != expected.size()) {
      throw std::runtime_error("the answer has " + std::to_string(actual.size()) + " values, " +
                               one.expected + " has " + std::to_string(expected.size()) +
                               ": does the router serve the golden checkpoint?");
    }
    const Worst worst = WorstError(actual, expected, model.d_model());
    const bool within = worst.error <= one.tolerance;
    std::printf("%s to %s: error %.2e at token %zu, at most %.0e: %s\n",
                em::Dtype_Name(one.sent).c_str(), em::Dtype_Name(one.answered).c_str(), worst.error,
                worst.token, one.tolerance, within ? "ok" : "TOO LARGE");
    good = good && within;
  }
  return good;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: forward ROUTER GOLDEN_DIR\n");
    return 2;
  }
  try {
    return Run(argv[1], argv[2]) ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
