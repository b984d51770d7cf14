// ggml-rpc-layer: a layer of experts behind ggml's RPC backend, as one of the systems that
// tests/bench/bench.py measures in turns.
//
//   --role server   ggml's own server, on the CPU
//   --role caller   checks a small layer, loads a large one, then reads a line of JSON for each
//                   measurement and answers with one, as bench-baselines does
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "common/base/process.h"
#include "common/base/status_macros.h"
#include "ggml-backend.h"
#include "ggml-rpc.h"
#include "nlohmann/json.hpp"
#include "tests/bench/baselines/measured_load.h"
#include "tests/bench/ggml/random_layer.h"
#include "tests/bench/ggml/rpc_layer.h"

ABSL_FLAG(std::string, role, "", "server or caller");
ABSL_FLAG(std::string, listen, "127.0.0.1:0", "of a server: IPv4 address and port");
ABSL_FLAG(std::string, metrics_listen, "", "taken and not used: there are no metrics");
ABSL_FLAG(std::string, port_file, "", "of a server: where to write the port");
ABSL_FLAG(uint32_t, threads, 1, "of a server: threads that compute");
ABSL_FLAG(std::string, address, "", "of a caller: its server");
ABSL_FLAG(int64_t, d_model, 2048, "of a caller, as all that follow: width of a hidden state");
ABSL_FLAG(int64_t, intermediate, 768, "width of an expert");
ABSL_FLAG(int64_t, experts, 128, "experts of the layer");
ABSL_FLAG(int64_t, top_k, 8, "experts of a token");

namespace expertmesh::bench {
namespace {

using nlohmann::json;

// Rows are rounded to bf16 before each product, as the weights are: 2^-9 of each value.
constexpr double kTolerance = 1e-2;
constexpr absl::Duration kPatience = absl::Seconds(60);

// host:port, of IPv4.
absl::StatusOr<sockaddr_in> ParseAddress(const std::string& text) {
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  uint32_t port = 0;
  if (parts.size() != 2 || inet_pton(AF_INET, parts[0].c_str(), &address.sin_addr) != 1 ||
      !absl::SimpleAtoi(parts[1], &port) || port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is no address such as 127.0.0.1:0"));
  }
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

// ggml cannot be told to take any free port. Bound and never listening, the socket that is left
// open keeps others off the port, and lets ggml's own, which may share it, have it.
absl::StatusOr<uint16_t> ReservePort(sockaddr_in address) {
  const int socket_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  socklen_t size = sizeof(address);
  if (socket_fd < 0 || setsockopt(socket_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
      bind(socket_fd, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      getsockname(socket_fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return absl::ErrnoToStatus(errno, "no port for the server");
  }
  return ntohs(address.sin_port);
}

absl::Status Serve() {
  // It has nothing to finish, and ggml's loop has no other end.
  std::signal(SIGTERM, [](int) { _exit(0); });
  ASSIGN_OR_RETURN(const sockaddr_in address, ParseAddress(absl::GetFlag(FLAGS_listen)));
  ASSIGN_OR_RETURN(const uint16_t port, ReservePort(address));
  char host[INET_ADDRSTRLEN] = {};
  inet_ntop(AF_INET, &address.sin_addr, host, sizeof(host));
  ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
  RETURN_IF_ERROR(WritePortFile(absl::GetFlag(FLAGS_port_file), port, 0));
  ggml_backend_rpc_start_server(absl::StrCat(host, ":", port).c_str(), nullptr,
                                absl::GetFlag(FLAGS_threads), 1, &cpu);
  return absl::InternalError("ggml's server ended; what it wrote says why");
}

// The port is known before the server listens there, and ggml does not try twice.
absl::Status AwaitServer(const std::string& endpoint) {
  ASSIGN_OR_RETURN(const sockaddr_in address, ParseAddress(endpoint));
  for (const absl::Time deadline = absl::Now() + kPatience; absl::Now() < deadline;
       absl::SleepFor(absl::Milliseconds(10))) {
    const int socket_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int failed =
        connect(socket_fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
    close(socket_fd);
    if (failed == 0) {
      return absl::OkStatus();
    }
  }
  return absl::UnavailableError(absl::StrCat("no ggml RPC server at ", endpoint));
}

// A figure of a layer that computes something else would mean nothing.
absl::Status CheckAgainstPlain(const std::string& endpoint) {
  const MoeShape shape = {.d_model = 96, .intermediate = 64, .experts = 8, .top_k = 3};
  ASSIGN_OR_RETURN(const std::unique_ptr<RpcLayer> layer, RpcLayer::Create(endpoint, shape));
  std::vector<ExpertWeights> experts;
  for (int64_t expert = 0; expert < shape.experts; ++expert) {
    experts.push_back(RandomExpert(shape, static_cast<uint64_t>(expert) + 1));
    layer->SetExpert(expert, experts.back());
  }
  for (const int64_t tokens : {1, 7, 7}) {
    const RoutedRows rows = RandomRows(shape, tokens, static_cast<uint64_t>(tokens));
    std::vector<float> output(rows.hidden.size());
    RETURN_IF_ERROR(layer->Compute(rows, output.data()));
    const double error = RelativeError(output, PlainLayer(shape, experts, rows), shape.d_model);
    std::fprintf(stderr, "%ld tokens: relative error %.2g against plain double\n",
                 static_cast<long>(tokens), error);
    if (!(error <= kTolerance)) {
      return absl::InternalError(absl::StrCat("ggml's layer is off by ", error, " of a row"));
    }
  }
  return absl::OkStatus();
}

class Caller {
 public:
  Caller(const MoeShape& shape, std::unique_ptr<RpcLayer> layer)
      : shape_(shape), layer_(std::move(layer)) {}

  absl::StatusOr<json> Measure(const json& command) {
    if (command.at("routing") != "uniform") {
      return absl::InvalidArgumentError("ggml_rpc takes uniform routing only");
    }
    const std::vector<RoutedRows>& requests = Requests(command.at("tokens"));
    const auto call = [&](size_t, size_t request) { return Call(requests[request]); };
    ASSIGN_OR_RETURN(json answer, MeasureLoad(command, requests.size(), call, [] {}));
    answer["caller_bytes"] = requests[0].bytes() * answer["requests"].get<uint64_t>();
    return answer;
  }

 private:
  const std::vector<RoutedRows>& Requests(int64_t tokens) {
    std::vector<RoutedRows>& requests = requests_[tokens];
    if (requests.empty()) {
      // As many as the other systems send in turn.
      const int64_t count = std::clamp<int64_t>(512 / tokens, 4, 64);
      for (int64_t i = 1; i <= count; ++i) {
        requests.push_back(RandomRows(shape_, tokens, static_cast<uint64_t>(i)));
      }
    }
    return requests;
  }

  // One connection, hence one request after the other.
  absl::Status Call(const RoutedRows& rows) {
    absl::MutexLock lock(&mutex_);
    output_.resize(rows.hidden.size());
    return layer_->Compute(rows, output_.data());
  }

  const MoeShape shape_;
  std::map<int64_t, std::vector<RoutedRows>> requests_;
  absl::Mutex mutex_;
  const std::unique_ptr<RpcLayer> layer_ ABSL_PT_GUARDED_BY(mutex_);
  std::vector<float> output_ ABSL_GUARDED_BY(mutex_);
};

absl::Status AnswerAsCaller() {
  const std::string endpoint = absl::GetFlag(FLAGS_address);
  const MoeShape shape = {absl::GetFlag(FLAGS_d_model), absl::GetFlag(FLAGS_intermediate),
                          absl::GetFlag(FLAGS_experts), absl::GetFlag(FLAGS_top_k)};
  RETURN_IF_ERROR(AwaitServer(endpoint));
  RETURN_IF_ERROR(CheckAgainstPlain(endpoint));
  ASSIGN_OR_RETURN(std::unique_ptr<RpcLayer> layer, RpcLayer::Create(endpoint, shape));
  for (int64_t expert = 0; expert < shape.experts; ++expert) {
    layer->SetExpert(expert, RandomExpert(shape, static_cast<uint64_t>(expert) + 1));
  }
  Caller caller(shape, std::move(layer));
  return AnswerCommands([&caller](const json& command) { return caller.Measure(command); });
}

absl::Status Run() {
  const std::string role = absl::GetFlag(FLAGS_role);
  if (role == "server") {
    return Serve();
  }
  if (role == "caller") {
    return AnswerAsCaller();
  }
  return absl::InvalidArgumentError(absl::StrCat("--role is '", role, "'; use server or caller"));
}

}  // namespace
}  // namespace expertmesh::bench

int main(int argc, char** argv) {
  expertmesh::TuneProcess();
  expertmesh::AcceptHyphens(argc, argv);
  absl::ParseCommandLine(argc, argv);
  const absl::Status status = expertmesh::bench::Run();
  if (!status.ok()) {
    std::fprintf(stderr, "ggml-rpc-layer: %s\n", std::string(status.message()).c_str());
    return 1;
  }
  return 0;
}
