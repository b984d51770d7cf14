#include "client/cpp/replay/service_time_fit.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/balance/routing_record.h"
#include "common/base/status_macros.h"

namespace expertmesh::replay {
namespace {

constexpr size_t kLeastBatches = 100;
// Parts of nodes that are kept; beyond, every other batch is left out.
constexpr size_t kMaxParts = size_t{1} << 20;
// Rounds in which the slowest node of each batch is found and the times are fitted to it.
constexpr int kRounds = 30;
constexpr int kMaxSweeps = 10'000;
// What is nearer counts as if it were so far.
constexpr double kLeastError = 0.01;

constexpr size_t kTimes = 6;
// What a batch of one size multiplies the times with, in this order: hop, token, row, batch,
// expert, assignment.
using Factors = std::array<double, kTimes>;
enum Place : size_t { kHop, kToken, kRow, kBatch, kExpert, kAssignment };

// What a batch brings to a node, in its own time.
struct NodePart {
  float rows = 0;
  float experts = 0;
  float assignments = 0;
};

struct Batch {
  double took_us = 0;
  double tokens = 0;
  // [nodes]
  std::vector<NodePart> parts;
};

double Dot(const Factors& factors, const Factors& times) {
  double sum = 0;
  for (size_t i = 0; i < kTimes; ++i) {
    sum += factors[i] * times[i];
  }
  return sum;
}

// Reads batches, and thins them out when they become too many.
class BatchReader {
 public:
  explicit BatchReader(const MeshModel& mesh)
      : mesh_(mesh), most_(std::max(2 * kLeastBatches, kMaxParts / mesh.nodes.size())) {}

  absl::Status Read(const std::string& path) {
    ASSIGN_OR_RETURN(const auto reader, balance::RoutingRecordReader::Open(path));
    if (batches_.empty()) {
      fingerprint_ = reader->model().identity.fingerprint;
    }
    if (reader->model().identity.fingerprint != fingerprint_) {
      return absl::OkStatus();
    }
    const std::vector<balance::LayerPlacement> placement =
        FirstPlacement(mesh_, reader->model().layers);
    balance::RecordedBatch batch;
    while (true) {
      ASSIGN_OR_RETURN(const bool more, reader->Next(&batch));
      if (!more) {
        return absl::OkStatus();
      }
      if (batch.batch_us == balance::kNoMicros || batch.batch_us == 0 || batch.tokens == 0 ||
          seen_++ % every_ != 0) {
        continue;
      }
      for (const balance::LayerPlacement& layer : placement) {
        if (layer.layer == batch.layer) {
          Keep(batch, layer);
        }
      }
    }
  }

  const std::vector<Batch>& batches() const { return batches_; }

 private:
  void Keep(const balance::RecordedBatch& recorded, const balance::LayerPlacement& placement) {
    Batch batch = {.took_us = static_cast<double>(recorded.batch_us),
                   .tokens = static_cast<double>(recorded.tokens),
                   .parts = std::vector<NodePart>(mesh_.nodes.size())};
    used_.assign(placement.experts.size(), false);
    const size_t top_k = recorded.experts.size() / recorded.tokens;
    for (size_t token = 0; token < recorded.tokens; ++token) {
      has_row_.assign(mesh_.nodes.size(), false);
      for (size_t slot = 0; slot < top_k; ++slot) {
        const uint32_t expert = recorded.experts[token * top_k + slot];
        if (expert == balance::kNoExpert) {
          continue;
        }
        const uint32_t node = placement.experts[expert].front().node;
        NodePart& part = batch.parts[node];
        const auto slower = static_cast<float>(1 / mesh_.nodes[node].speed);
        part.assignments += slower;
        part.experts += used_[expert] ? 0 : slower;
        part.rows += has_row_[node] ? 0 : static_cast<float>(mesh_.nodes[node].link);
        used_[expert] = true;
        has_row_[node] = true;
      }
    }
    batches_.push_back(std::move(batch));
    if (batches_.size() >= most_) {
      every_ *= 2;
      for (size_t i = 0; 2 * i < batches_.size(); ++i) {
        batches_[i] = std::move(batches_[2 * i]);
      }
      batches_.resize((batches_.size() + 1) / 2);
    }
  }

  const MeshModel& mesh_;
  const size_t most_;
  std::string fingerprint_;
  uint64_t seen_ = 0;
  uint64_t every_ = 1;
  std::vector<Batch> batches_;
  // Working memory.
  std::vector<bool> used_;
  std::vector<bool> has_row_;
};

// What the batch waits for, by these times: its slowest node, or all that share the cores.
Factors FactorsOf(const MeshModel& mesh, const Batch& batch, const Factors& times) {
  Factors slowest = {};
  Factors together = {};
  size_t taking_part = 0;
  for (size_t i = 0; i < batch.parts.size(); ++i) {
    const NodePart& part = batch.parts[i];
    if (part.assignments <= 0) {
      continue;
    }
    ++taking_part;
    const Factors computing = {0, 0, 0, 1 / mesh.nodes[i].speed, part.experts, part.assignments};
    Factors alone = computing;
    alone[kRow] = part.rows;
    if (Dot(alone, times) >= Dot(slowest, times)) {
      slowest = alone;
    }
    for (size_t place = 0; place < kTimes; ++place) {
      together[place] += computing[place] / std::max(1U, mesh.parallel_nodes);
    }
  }
  if (mesh.parallel_nodes > 0 && mesh.parallel_nodes < taking_part &&
      Dot(together, times) > Dot(slowest, times)) {
    slowest = together;
  }
  slowest[kHop] = 1;
  slowest[kToken] = batch.tokens;
  return slowest;
}

double RelativeError(const Batch& batch, const Factors& factors, const Factors& times) {
  return std::abs(Dot(factors, times) / batch.took_us - 1);
}

// The x >= 0 with the least sum over batches of weight * (factors . x / took - 1)^2: coordinate
// descent, which ends at the least since the sum is convex.
Factors LeastSquares(const std::vector<Batch>& batches, const std::vector<Factors>& factors,
                     const std::vector<double>& weights) {
  std::array<Factors, kTimes> products = {};
  Factors target = {};
  double all = 0;
  for (size_t i = 0; i < batches.size(); ++i) {
    all += weights[i];
    for (size_t a = 0; a < kTimes; ++a) {
      const double left = weights[i] * factors[i][a] / batches[i].took_us;
      target[a] += left;
      for (size_t b = 0; b < kTimes; ++b) {
        products[a][b] += left * factors[i][b] / batches[i].took_us;
      }
    }
  }
  Factors x = {};
  for (int sweep = 0; sweep < kMaxSweeps; ++sweep) {
    double moved = 0;
    for (size_t a = 0; a < kTimes; ++a) {
      if (products[a][a] <= 0) {
        continue;
      }
      const double rest = Dot(products[a], x) - products[a][a] * x[a];
      const double next = std::max(0.0, (target[a] - rest) / products[a][a]);
      moved = std::max(moved, std::abs(next - x[a]) * std::sqrt(products[a][a]));
      x[a] = next;
    }
    if (moved < 1e-9 * std::sqrt(all)) {
      break;
    }
  }
  return x;
}

double MedianError(const std::vector<Batch>& batches, const std::vector<Factors>& factors,
                   const Factors& times) {
  std::vector<double> errors;
  for (size_t i = 0; i < batches.size(); ++i) {
    errors.push_back(RelativeError(batches[i], factors[i], times));
  }
  const auto middle = errors.begin() + static_cast<ptrdiff_t>(errors.size() / 2);
  std::nth_element(errors.begin(), middle, errors.end());
  return *middle;
}

}  // namespace

absl::StatusOr<ServiceTimeFit> FitServiceTimes(const std::string& name, const MeshModel& mesh) {
  if (mesh.copies != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("experts have ", mesh.copies,
                     " copies, and which of them a batch used is not recorded; fit a recording "
                     "of a mesh with one"));
  }
  ASSIGN_OR_RETURN(const std::vector<std::string> files, balance::RecordingFiles(name));
  BatchReader reader(mesh);
  // Newest first: an older file may be of another model.
  for (auto file = files.rbegin(); file != files.rend(); ++file) {
    RETURN_IF_ERROR(reader.Read(*file));
  }
  const std::vector<Batch>& batches = reader.batches();
  if (batches.size() < kLeastBatches) {
    return absl::FailedPreconditionError(
        absl::StrCat(name, ": ", batches.size(), " batches have a duration, of ", kLeastBatches,
                     " that a fit needs; record for longer"));
  }
  Factors times = {1, 1, 1, 1, 1, 1};
  std::vector<Factors> factors(batches.size());
  std::vector<double> weights(batches.size(), 1);
  for (int round = 0; round < kRounds; ++round) {
    for (size_t i = 0; i < batches.size(); ++i) {
      factors[i] = FactorsOf(mesh, batches[i], times);
      if (round > 0) {
        // Squares weighted so are absolute values: medians are met, not means.
        weights[i] = 1 / std::max(kLeastError, RelativeError(batches[i], factors[i], times));
      }
    }
    times = LeastSquares(batches, factors, weights);
  }
  return ServiceTimeFit{.times = {.assignment_us = std::max(times[kAssignment], 1e-6),
                                  .expert_us = times[kExpert],
                                  .batch_us = times[kBatch],
                                  .row_us = times[kRow],
                                  .token_us = times[kToken],
                                  .hop_us = times[kHop]},
                        .batches = batches.size(),
                        .median_error = MedianError(batches, factors, times)};
}

}  // namespace expertmesh::replay
