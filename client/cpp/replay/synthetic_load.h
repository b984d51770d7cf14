// Loads that were made up: how popular each expert is, and how that and the traffic change.
#ifndef EXPERTMESH_CLIENT_CPP_REPLAY_SYNTHETIC_LOAD_H_
#define EXPERTMESH_CLIENT_CPP_REPLAY_SYNTHETIC_LOAD_H_

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/cpp/replay/load_source.h"

namespace expertmesh::replay {

// Weights of a layer's experts by rank, the most popular first.
// kUniform: all the same. kZipf: 1 / rank^exponent. kHot: `hot` experts have `hot_share` of the sum
// between them, the others the rest.
enum class Popularity { kUniform, kZipf, kHot };

struct SyntheticOptions {
  Popularity popularity = Popularity::kZipf;
  double exponent = 1;
  uint32_t hot = 1;
  double hot_share = 0.5;
  // Which expert has which rank walks: after 1 / drift hours, a rank has e^-1 of its correlation
  // with where it began. 0: ranks stay.
  double drift_per_hour = 0;
  // Tokens per second swing by this share of their mean in a day, beginning at the mean. 0 to 1.
  double diurnal = 0;
};

// "uniform", "zipf:S" (S from 0 to 10) or "hot:K:SHARE", then "+drift:R" (per hour) and
// "+diurnal:A", each or not. INVALID_ARGUMENT names the part that is wrong and what is accepted.
absl::StatusOr<SyntheticOptions> ParseSyntheticLoad(absl::string_view text);

// [num_experts] ln of the weights by rank; they add up to 1.
std::vector<double> LogWeights(const SyntheticOptions& options, uint32_t num_experts);

struct SyntheticTraffic {
  double tokens_per_second = 10'000;
  // Tokens of one batch of a layer.
  double batch_tokens = 256;
  double interval_s = 10;
  uint64_t intervals = 360;
  uint64_t seed = 1;
};

// The same seed makes the same load. Every layer has ranks of its own.
class SyntheticLoad final : public LoadSource {
 public:
  // `options` as ParseSyntheticLoad makes them; layers as balance::ValidateRecordedModel has them.
  SyntheticLoad(const SyntheticOptions& options, const SyntheticTraffic& traffic,
                std::vector<balance::RecordedLayer> layers);

  absl::Span<const balance::RecordedLayer> layers() const override { return layers_; }
  double interval_s() const override { return traffic_.interval_s; }
  size_t intervals() const override { return traffic_.intervals; }
  bool has_scores() const override { return true; }
  std::string Describe() const override;
  void Next(IntervalLoad* load) override;

 private:
  // How popular the experts of a layer are; the highest has the first rank.
  struct Walk {
    std::mt19937_64 random;
    std::vector<double> places;
    std::vector<double> by_rank;  // ln of the weights.
  };

  void Move(Walk* walk) const;
  void Fill(const balance::RecordedLayer& layer, Walk* walk, double tokens, LayerLoad* load) const;

  const SyntheticOptions options_;
  const SyntheticTraffic traffic_;
  const std::vector<balance::RecordedLayer> layers_;
  std::vector<Walk> walks_;
  uint64_t next_ = 0;
};

}  // namespace expertmesh::replay

#endif  // EXPERTMESH_CLIENT_CPP_REPLAY_SYNTHETIC_LOAD_H_
