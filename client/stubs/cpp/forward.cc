// Calls a router through generated C++ stubs, and compares its answers with golden ones.
//
//   forward ROUTER GOLDEN_DIR
//
// The library expertmesh::client (client/cpp) does this with less to write, and more. This program
// shows what is on the wire. It must run on a little-endian machine, as gRPC's tensors are little
// endian.
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "expertmesh/v1/router.grpc.pb.h"

namespace em = expertmesh::v1;

namespace {

constexpr auto kTimeout = std::chrono::seconds(30);

// float32, little endian.
std::string PackF32(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

std::vector<float> UnpackF32(const std::string& data) {
  std::vector<float> values(data.size() / sizeof(float));
  std::memcpy(values.data(), data.data(), values.size() * sizeof(float));
  return values;
}

// The upper half of each float32, rounded to nearest, ties to even; little endian.
std::string PackBf16(const std::vector<float>& values) {
  std::string data(values.size() * sizeof(uint16_t), '\0');
  for (size_t i = 0; i < values.size(); ++i) {
    uint32_t bits;
    std::memcpy(&bits, &values[i], sizeof(bits));
    // Rounding would carry a NaN with few bits into an infinity.
    const uint32_t rounded =
        std::isnan(values[i]) ? bits | 0x400000 : bits + 0x7fff + (bits >> 16 & 1);
    const uint16_t half = static_cast<uint16_t>(rounded >> 16);
    std::memcpy(&data[i * sizeof(half)], &half, sizeof(half));
  }
  return data;
}

std::vector<float> UnpackBf16(const std::string& data) {
  std::vector<float> values(data.size() / sizeof(uint16_t));
  for (size_t i = 0; i < values.size(); ++i) {
    uint16_t half;
    std::memcpy(&half, &data[i * sizeof(half)], sizeof(half));
    const uint32_t bits = static_cast<uint32_t>(half) << 16;
    std::memcpy(&values[i], &bits, sizeof(bits));
  }
  return values;
}

std::vector<float> ReadF32(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    throw std::runtime_error("cannot read " + path);
  }
  return UnpackF32({std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()});
}

struct Worst {
  size_t token = 0;
  double error = 0;  // Norm of the difference over norm of the expected row.
};

Worst WorstError(const std::vector<float>& actual, const std::vector<float>& expected,
                 size_t d_model) {
  Worst worst;
  for (size_t token = 0; token < expected.size() / d_model; ++token) {
    double difference = 0, norm = 0;
    for (size_t i = token * d_model; i < (token + 1) * d_model; ++i) {
      difference += std::pow(static_cast<double>(actual[i]) - expected[i], 2);
      norm += std::pow(static_cast<double>(expected[i]), 2);
    }
    const double error = std::sqrt(difference / norm);
    if (std::isnan(error)) {
      return {token, error};
    }
    if (error > worst.error) {
      worst = {token, error};
    }
  }
  return worst;
}

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
