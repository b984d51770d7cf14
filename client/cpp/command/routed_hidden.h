// Hidden states that go where a benchmark wants them to.
//
// Rows of a gate are nearly orthogonal, so noise plus a multiple of the rows of some experts, less
// a multiple of all others, is scored highest by these experts. Whether it happened is for the
// router to say.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_ROUTED_HIDDEN_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_ROUTED_HIDDEN_H_

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cpp/expertmesh/client.h"
#include "common/checkpoint/moe_checkpoint.h"

namespace expertmesh::command {

enum class RoutingKind {
  kRandom,   // Noise alone, wherever it goes.
  kUniform,  // Every token its own experts, all equally likely.
  kKHot,     // All tokens of all requests the same experts.
  kZipf,     // Every token its own; the r-th most popular is 1/r as likely as the first.
};

// random, uniform, k-hot or zipf, which is what ParseRoutingKind takes.
const std::vector<std::string>& RoutingKindNames();
RoutingKind ParseRoutingKind(const std::string& name);

class HiddenMaker {
 public:
  // Noise alone, for any model.
  HiddenMaker(client::Dtype dtype, size_t d_model) : dtype_(dtype), d_model_(d_model) {}

  // For a layer of a checkpoint, which is only read during the call.
  //   INVALID_ARGUMENT  the layer's experts are not chosen by its gate's top k.
  //   NOT_FOUND         no such layer.
  static absl::StatusOr<HiddenMaker> Create(RoutingKind kind,
                                            const checkpoint::MoeCheckpoint& checkpoint,
                                            uint32_t layer, client::Dtype dtype);

  // The same values for the same seed.
  client::Matrix Make(size_t tokens, uint64_t seed) const;

 private:
  std::vector<uint32_t> Wanted(std::mt19937_64* random) const;

  RoutingKind kind_ = RoutingKind::kRandom;
  client::Dtype dtype_;
  size_t d_model_ = 0;
  uint32_t top_k_ = 0;
  uint32_t groups_ = 1;
  uint32_t groups_of_token_ = 1;
  std::vector<float> gate_;         // [experts, d_model], rows of length 1.
  std::vector<float> all_;          // [d_model], their sum.
  std::vector<double> popularity_;  // [experts], logarithms.
  // kKHot.
  std::vector<uint32_t> hot_;
};

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_ROUTED_HIDDEN_H_
