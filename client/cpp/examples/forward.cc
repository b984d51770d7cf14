// Sends four tokens through the first MoE layer of a router.
//
//   forward 127.0.0.1:50050
#include <expertmesh/client.h>

#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace em = expertmesh::client;

namespace {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: forward ROUTER\n");
    return 2;
  }
  const absl::StatusOr<std::unique_ptr<em::Client>> client = em::Client::Connect(argv[1]);
  if (!client.ok()) {
    return Fail(client.status());
  }
  const absl::StatusOr<em::ModelInfo> model = (*client)->DescribeModel();
  if (!model.ok()) {
    return Fail(model.status());
  }
  const size_t tokens = 4;
  std::vector<float> values(tokens * model->d_model);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(i % 17) / 17.0f - 0.5f;
  }

  em::ForwardOptions options;
  options.timeout = absl::Seconds(10);
  options.return_routing = true;
  const absl::StatusOr<em::ForwardResult> result =
      (*client)->Forward(model->layers.front().layer,
                         em::Matrix::Take(tokens, model->d_model, std::move(values)), options);
  if (!result.ok()) {
    return Fail(result.status());
  }
  size_t at = 0;
  for (size_t token = 0; token < tokens; ++token) {
    std::printf("token %zu: output[0] = %f, experts", token,
                static_cast<double>(result->output.As<float>()[token * model->d_model]));
    const em::Routing& routing = result->routing;
    const size_t experts = routing.assignments_per_token.empty()
                               ? routing.experts_per_token
                               : routing.assignments_per_token[token];
    for (size_t slot = 0; slot < experts; ++slot, ++at) {
      std::printf(" %u (%.3f)", result->routing.expert_ids[at],
                  static_cast<double>(result->routing.expert_weights[at]));
    }
    std::printf("\n");
  }
  return 0;
}
