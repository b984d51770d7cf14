// The pattern of the first generation of expert servers.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "absl/synchronization/blocking_counter.h"
#include "common/base/process.h"
#include "common/base/status_macros.h"
#include "common/base/thread_pool.h"
#include "common/net/grpc_client.h"
#include "common/net/grpc_server.h"
#include "common/tensor/aligned_buffer.h"
#include "expertmesh/v1/router.grpc.pb.h"
#include "tests/bench/baselines/blank_bytes.h"
#include "tests/bench/baselines/local_layer.h"

namespace expertmesh::bench {
namespace {

// A unary method of the contract that takes any bytes when served raw.
constexpr char kMethod[] = "/expertmesh.v1.Router/Forward";

// How a request begins; rows follow, and come back alone.
struct ExpertHeader {
  uint32_t expert = 0;
  uint32_t rows = 0;
};

class ExpertServer {
 public:
  explicit ExpertServer(LocalLayer layer) : layer_(std::move(layer)) {}

  absl::StatusOr<Frame> Compute(const Frame& request) {
    const auto header = ReadHeader<ExpertHeader>(request);
    const size_t elements = size_t{header.rows} * layer_.d_model;
    const size_t bytes = elements * BytesOf(layer_.dtype);
    if (request.size() != sizeof(header) + bytes || header.expert >= layer_.experts.size() ||
        layer_.experts[header.expert] == nullptr) {
      return absl::InvalidArgumentError("no such expert here, or another number of bytes");
    }
    AlignedBuffer rows(bytes);
    request.CopyTo(sizeof(header), bytes, rows.data());
    AlignedBuffer sums(elements * sizeof(float));
    std::vector<uint32_t> row_begin(header.rows + 1);
    std::iota(row_begin.begin(), row_begin.end(), 0);
    const std::vector<const experts::PackedExpert*> experts(header.rows,
                                                            layer_.experts[header.expert].get());
    const std::vector<float> weights(header.rows, 1.0f);
    RETURN_IF_ERROR(experts::Compute(
        *layer_.backend, {rows.data(), header.rows, layer_.d_model, row_begin, experts, weights,
                          ApplyWeight::kOutput, sums.as<float>()}));
    std::string reply(bytes, '\0');
    ConvertElements(Dtype::kF32, sums.data(), layer_.dtype, reply.data(), elements);
    return Frame(std::move(reply));
  }

 private:
  const LocalLayer layer_;
};

// Rows of a request that go to one expert in one RPC, and what came back for them.
struct ExpertCall {
  uint32_t expert = 0;
  std::vector<uint32_t> rows;
  std::vector<float> weights;
  absl::StatusOr<Frame> reply = absl::UnknownError("");
};

class RpcPerExpert final : public Target {
 public:
  RpcPerExpert(LocalLayer layer, const std::vector<std::string>& addresses, bool grouped)
      : layer_(std::move(layer)), grouped_(grouped) {
    for (const std::string& address : addresses) {
      clients_.push_back(std::make_unique<net::GrpcClient>(&runtime_, address, net::GrpcOptions()));
    }
  }

  absl::Status Call(size_t, const client::Matrix& hidden) override {
    gate::RoutedTokens routed;
    RETURN_IF_ERROR(layer_.Route(hidden, &routed));
    std::vector<ExpertCall> calls = grouped_ ? OneForEachExpert(routed) : OneForEach(routed);
    SendAll(hidden, &calls);
    return Sum(hidden, calls);
  }

 private:
  static std::vector<ExpertCall> OneForEach(const gate::RoutedTokens& routed) {
    std::vector<ExpertCall> calls;
    for (uint32_t token = 0; token < routed.tokens(); ++token) {
      for (uint32_t a = routed.token_begin[token]; a < routed.token_begin[token + 1]; ++a) {
        calls.push_back({routed.expert_ids[a], {token}, {routed.weights[a]}});
      }
    }
    return calls;
  }

  std::vector<ExpertCall> OneForEachExpert(const gate::RoutedTokens& routed) const {
    std::vector<ExpertCall> calls(layer_.experts.size());
    for (ExpertCall& each : OneForEach(routed)) {
      ExpertCall& call = calls[each.expert];
      call.expert = each.expert;
      call.rows.push_back(each.rows[0]);
      call.weights.push_back(each.weights[0]);
    }
    const auto unused = [](const ExpertCall& call) { return call.rows.empty(); };
    calls.erase(std::remove_if(calls.begin(), calls.end(), unused), calls.end());
    return calls;
  }

  Frame Encode(const client::Matrix& hidden, const ExpertCall& call) const {
    const size_t row_bytes = layer_.d_model * BytesOf(layer_.dtype);
    const ExpertHeader header = {call.expert, static_cast<uint32_t>(call.rows.size())};
    std::string bytes(sizeof(header) + call.rows.size() * row_bytes, '\0');
    std::memcpy(bytes.data(), &header, sizeof(header));
    for (size_t i = 0; i < call.rows.size(); ++i) {
      std::memcpy(bytes.data() + sizeof(header) + i * row_bytes,
                  hidden.bytes().data() + call.rows[i] * row_bytes, row_bytes);
    }
    return Frame(std::move(bytes));
  }

  void SendAll(const client::Matrix& hidden, std::vector<ExpertCall>* calls) {
    absl::BlockingCounter missing(static_cast<int>(calls->size()));
    net::CallOptions options;
    options.wait_for_ready = true;
    const auto experts = static_cast<uint32_t>(layer_.experts.size());
    const auto shards = static_cast<uint32_t>(clients_.size());
    for (ExpertCall& call : *calls) {
      clients_[ShardOf(call.expert, experts, shards)]->UnaryCall(
          kMethod, Encode(hidden, call), options, [&call, &missing](absl::StatusOr<Frame> reply) {
            call.reply = std::move(reply);
            missing.DecrementCount();
          });
    }
    missing.Wait();
  }

  absl::Status Sum(const client::Matrix& hidden, const std::vector<ExpertCall>& calls) const {
    const size_t d_model = layer_.d_model;
    const size_t row_bytes = d_model * BytesOf(layer_.dtype);
    AlignedBuffer sums(hidden.rows() * d_model * sizeof(float));
    std::fill_n(sums.as<float>(), hidden.rows() * d_model, 0.0f);
    std::string row(row_bytes, '\0');
    std::vector<float> values(d_model);
    for (const ExpertCall& call : calls) {
      for (size_t i = 0; i < call.rows.size(); ++i) {
        RETURN_IF_ERROR(call.reply.status());
        call.reply->CopyTo(i * row_bytes, row_bytes, row.data());
        ConvertElements(layer_.dtype, row.data(), Dtype::kF32, values.data(), d_model);
        float* sum = sums.as<float>() + call.rows[i] * d_model;
        for (size_t col = 0; col < d_model; ++col) {
          sum[col] += call.weights[i] * values[col];
        }
      }
    }
    RETURN_IF_ERROR(layer_.AddShared(hidden.bytes().data(), hidden.rows(), sums.as<float>()));
    std::string output(hidden.bytes().size(), '\0');
    ConvertElements(Dtype::kF32, sums.data(), layer_.dtype, output.data(), hidden.rows() * d_model);
    return absl::OkStatus();
  }

  const LocalLayer layer_;
  const bool grouped_;
  net::GrpcRuntime runtime_;
  std::vector<std::unique_ptr<net::GrpcClient>> clients_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Target>> MakeRpcPerExpert(const TargetOptions& options,
                                                         bool grouped) {
  ASSIGN_OR_RETURN(LocalLayer layer, LocalLayer::Load(options, [](uint32_t) { return false; }));
  return std::make_unique<RpcPerExpert>(std::move(layer), options.addresses, grouped);
}

absl::Status ServeExperts(const ServeOptions& options, const TargetOptions& experts, uint32_t shard,
                          uint32_t shards) {
  const MoeLayerDescription* description = experts.checkpoint->model().FindLayer(experts.layer);
  const uint32_t count = description == nullptr ? 0 : description->routing.num_experts;
  ASSIGN_OR_RETURN(LocalLayer layer, LocalLayer::Load(experts, [=](uint32_t expert) {
                     return ShardOf(expert, count, shards) == shard;
                   }));
  ExpertServer experts_served(std::move(layer));
  ThreadPool pool(1);
  net::GrpcServerSpec spec;
  spec.address = options.listen;
  spec.unary.push_back(
      {kMethod, [&](Frame request, const CallContextPtr&, net::UnaryResponder respond) {
         pool.Run([&experts_served, request = std::move(request), respond = std::move(respond)] {
           respond(experts_served.Compute(request));
         });
       }});
  ASSIGN_OR_RETURN(const std::unique_ptr<net::GrpcServer> server,
                   net::GrpcServer::Start(std::move(spec)));
  RETURN_IF_ERROR(WritePortFile(options.port_file, server->port(), 0));
  WaitForStopSignal();
  server->Shutdown(absl::Seconds(1));
  return absl::OkStatus();
}

}  // namespace expertmesh::bench
