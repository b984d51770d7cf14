// bench-baselines: what the mesh is compared with. Started and spoken to by tests/bench/bench.py.
//
//   --role caller --target NAME   reads a line of JSON for each measurement, answers with one
//   --role ceilings               prints what this machine can do at best
//   --role grpc_echo, grpc_forward, tcp_echo, tcp_forward, experts: a server

#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/cpp/command/bench_layer.h"
#include "client/cpp/command/routed_hidden.h"
#include "client/cpp/library/forward_codec.h"
#include "common/base/message_bytes.h"
#include "common/base/process.h"
#include "common/base/status_macros.h"
#include "common/experts/compute_dtype.h"
#include "common/net/grpc_logging.h"
#include "nlohmann/json.hpp"
#include "tests/bench/baselines/ceilings.h"
#include "tests/bench/baselines/measured_load.h"
#include "tests/bench/baselines/target.h"

ABSL_FLAG(std::string, role, "", "caller, ceilings, or the kind of server");
ABSL_FLAG(std::string, target, "",
          "of a caller: in_process, two_bare_hops, raw_tcp, rpc_per_expert or rpc_per_assignment");
ABSL_FLAG(std::string, model, "", "checkpoint folder");
ABSL_FLAG(uint32_t, layer, 0, "the layer");
ABSL_FLAG(int, threads, 1, "threads that compute");
ABSL_FLAG(std::string, addresses, "", "of a caller: its servers; of a forwarder: the next one");
ABSL_FLAG(std::string, shard, "0/1", "of experts: which part of them");
ABSL_FLAG(double, seconds, 0.5, "of ceilings: time for each");
ABSL_FLAG(std::string, listen, "127.0.0.1:0", "of servers");
ABSL_FLAG(std::string, metrics_listen, "", "taken and not used: there are no metrics");
ABSL_FLAG(std::string, port_file, "", "of servers: where to write the port");

namespace expertmesh::bench {
namespace {

using nlohmann::json;

absl::StatusOr<TargetOptions> OptionsFromFlags() {
  TargetOptions options;
  options.layer = absl::GetFlag(FLAGS_layer);
  options.threads = absl::GetFlag(FLAGS_threads);
  options.addresses = absl::StrSplit(absl::GetFlag(FLAGS_addresses), ',', absl::SkipEmpty());
  if (!absl::GetFlag(FLAGS_model).empty()) {
    ASSIGN_OR_RETURN(options.checkpoint,
                     checkpoint::MoeCheckpoint::Open(absl::GetFlag(FLAGS_model)));
  }
  return options;
}

absl::StatusOr<std::unique_ptr<Target>> MakeTarget(const std::string& name,
                                                   const TargetOptions& options) {
  if (name == "in_process") {
    return MakeInProcess(options);
  }
  if (name == "two_bare_hops") {
    return MakeTwoBareHops(options);
  }
  if (name == "raw_tcp") {
    return MakeRawTcp(options);
  }
  if (name == "rpc_per_expert" || name == "rpc_per_assignment") {
    return MakeRpcPerExpert(options, name == "rpc_per_expert");
  }
  return absl::InvalidArgumentError(absl::StrCat("--target is '", name, "'"));
}

class Caller {
 public:
  Caller(TargetOptions options, std::unique_ptr<Target> target)
      : options_(std::move(options)), target_(std::move(target)) {}

  absl::StatusOr<json> Measure(const json& command) {
    ASSIGN_OR_RETURN(const std::vector<client::Matrix>* requests,
                     Requests(command.at("routing"), command.at("tokens")));
    if (command.contains("sizes")) {
      const std::vector<uint32_t> sizes = command.at("sizes").get<std::vector<uint32_t>>();
      target_->SetSizes({sizes.at(0), sizes.at(1), sizes.at(2), sizes.at(3)});
    }
    uint64_t bytes_before = 0;
    const auto call = [&](size_t caller, size_t request) {
      return target_->Call(caller, (*requests)[request]);
    };
    const auto begin = [&] {
      target_->TakeWork();
      bytes_before = Bytes();
    };
    ASSIGN_OR_RETURN(json answer, MeasureLoad(command, requests->size(), call, begin));
    const ExpertWork work = target_->TakeWork();
    answer.update({{"caller_bytes", Bytes() - bytes_before},
                   {"compute_us", work.compute_us},
                   {"weight_bytes", work.weight_bytes},
                   {"flops", work.flops}});
    return answer;
  }

 private:
  static uint64_t Bytes() { return message_bytes.sent.load() + message_bytes.received.load(); }

  absl::StatusOr<const std::vector<client::Matrix>*> Requests(const std::string& routing,
                                                              size_t tokens) {
    std::vector<client::Matrix>& requests = requests_[{routing, tokens}];
    if (requests.empty()) {
      ASSIGN_OR_RETURN(const Dtype dtype,
                       experts::ChooseComputeDtype("auto", options_.checkpoint->model().dtype));
      ASSIGN_OR_RETURN(
          const command::HiddenMaker maker,
          command::HiddenMaker::Create(command::ParseRoutingKind(routing), *options_.checkpoint,
                                       options_.layer, client::FromInternal(dtype)));
      requests = command::MakeRequests(maker, tokens);
    }
    return &requests;
  }

  const TargetOptions options_;
  const std::unique_ptr<Target> target_;
  std::map<std::pair<std::string, size_t>, std::vector<client::Matrix>> requests_;
};

absl::Status AnswerAsCaller() {
  ASSIGN_OR_RETURN(const TargetOptions options, OptionsFromFlags());
  ASSIGN_OR_RETURN(std::unique_ptr<Target> target,
                   MakeTarget(absl::GetFlag(FLAGS_target), options));
  Caller caller(options, std::move(target));
  return AnswerCommands([&caller](const json& command) { return caller.Measure(command); });
}

absl::Status PrintCeilings() {
  const absl::Duration duration = absl::Seconds(absl::GetFlag(FLAGS_seconds));
  const int threads = absl::GetFlag(FLAGS_threads);
  ASSIGN_OR_RETURN(const TargetOptions options, OptionsFromFlags());
  ASSIGN_OR_RETURN(const Dtype dtype,
                   experts::ChooseComputeDtype("auto", options.checkpoint->model().dtype));
  ASSIGN_OR_RETURN(const double bytes, ReadBandwidth(threads, duration));
  ASSIGN_OR_RETURN(const double flops, ProductRate(dtype, threads, duration));
  std::cout << json{{"read_bytes_per_second", bytes},
                    {"product_flops_per_second", flops},
                    {"dtype", std::string(NameOf(dtype))}}
                   .dump()
            << std::endl;
  return absl::OkStatus();
}

absl::Status Run() {
  const std::string role = absl::GetFlag(FLAGS_role);
  const ServeOptions serve = {absl::GetFlag(FLAGS_listen), absl::GetFlag(FLAGS_port_file),
                              absl::GetFlag(FLAGS_addresses)};
  if (role == "caller") {
    return AnswerAsCaller();
  }
  if (role == "ceilings") {
    return PrintCeilings();
  }
  if (role == "grpc_echo") {
    return ServeGrpcEcho(serve);
  }
  if (role == "grpc_forward") {
    return ServeGrpcForward(serve);
  }
  if (role == "tcp_echo") {
    return ServeTcpEcho(serve);
  }
  if (role == "tcp_forward") {
    return ServeTcpForward(serve);
  }
  if (role == "experts") {
    ASSIGN_OR_RETURN(const TargetOptions options, OptionsFromFlags());
    uint32_t shard = 0;
    uint32_t shards = 1;
    const std::string flag = absl::GetFlag(FLAGS_shard);
    if (std::sscanf(flag.c_str(), "%u/%u", &shard, &shards) != 2) {
      return absl::InvalidArgumentError(absl::StrCat("--shard is '", flag, "'; use i/n"));
    }
    return ServeExperts(serve, options, shard, shards);
  }
  return absl::InvalidArgumentError(absl::StrCat("--role is '", role, "'"));
}

}  // namespace
}  // namespace expertmesh::bench

int main(int argc, char** argv) {
  expertmesh::TuneProcess();
  expertmesh::BlockStopSignals();
  expertmesh::net::RouteGrpcLogs();
  expertmesh::AcceptHyphens(argc, argv);
  absl::ParseCommandLine(argc, argv);
  const absl::Status status = expertmesh::bench::Run();
  if (!status.ok()) {
    std::fprintf(stderr, "bench-baselines: %s\n", std::string(status.message()).c_str());
    return 1;
  }
  return 0;
}
