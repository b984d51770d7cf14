#include "client/cpp/reference/reference_moe.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <thread>
#include <utility>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/process.h"
#include "common/base/status_macros.h"

namespace expertmesh {
namespace {

// A matrix as packed float32.
struct FloatMatrix {
  size_t rows = 0;
  size_t cols = 0;
  std::vector<float> values;

  const float* row(size_t index) const { return values.data() + index * cols; }
};

FloatMatrix Decode(const MatrixView& view) {
  FloatMatrix matrix{view.rows, view.cols, std::vector<float>(view.rows * view.cols)};
  const size_t element = BytesOf(view.dtype);
  for (size_t r = 0; r < view.rows; ++r) {
    const uint8_t* const row = view.data + r * view.row_stride * element;
    float* const target = matrix.values.data() + r * view.cols;
    if (view.col_stride == 1) {
      ConvertElements(view.dtype, row, DType::kF32, target, view.cols);
      continue;
    }
    for (size_t c = 0; c < view.cols; ++c) {
      ConvertElements(view.dtype, row + c * view.col_stride * element, DType::kF32, target + c, 1);
    }
  }
  return matrix;
}

// Products in float32, sixteen sums side by side, added up in double: far more exact than float32
// matrix multiplication, at its speed.
float Dot(const float* a, const float* b, size_t count) {
  constexpr size_t kLanes = 16;
  float lanes[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] += a[i + lane] * b[i + lane];
    }
  }
  double sum = 0.0;
  for (; i < count; ++i) {
    sum += static_cast<double>(a[i]) * b[i];
  }
  for (const float lane : lanes) {
    sum += lane;
  }
  return static_cast<float>(sum);
}

float Silu(float value) {
  return static_cast<float>(value / (1.0 + std::exp(-static_cast<double>(value))));
}

struct FloatExpert {
  FloatMatrix gate;
  FloatMatrix up;
  FloatMatrix down;
};

FloatExpert Decode(const ExpertWeights& weights) {
  return {Decode(weights.gate), Decode(weights.up), Decode(weights.down)};
}

// target = down(silu(gate x) * (up x))
void ApplyExpert(const FloatExpert& expert, const float* x, float* target) {
  std::vector<float> inner(expert.gate.rows);
  for (size_t i = 0; i < inner.size(); ++i) {
    inner[i] = Silu(Dot(expert.gate.row(i), x, expert.gate.cols)) *
               Dot(expert.up.row(i), x, expert.up.cols);
  }
  for (size_t i = 0; i < expert.down.rows; ++i) {
    target[i] = Dot(expert.down.row(i), inner.data(), expert.down.cols);
  }
}

// Calls work(0) .. work(count - 1), each once, from several threads.
void ParallelFor(size_t count, int threads, const std::function<void(size_t)>& work) {
  std::atomic<size_t> next = 0;
  const auto loop = [&] {
    for (size_t i = next++; i < count; i = next++) {
      work(i);
    }
  };
  std::vector<std::thread> helpers;
  for (size_t i = 1; i < std::min(count, static_cast<size_t>(threads)); ++i) {
    helpers.emplace_back(loop);
  }
  loop();
  for (std::thread& helper : helpers) {
    helper.join();
  }
}

// One layer and one batch, on the way to a ReferenceOutput.
class Forward {
 public:
  Forward(const MoeLayerDescription& layer, DType model_dtype, const float* hidden, size_t tokens,
          const ReferenceOptions& options)
      : layer_(layer),
        model_dtype_(model_dtype),
        hidden_(hidden),
        tokens_(tokens),
        d_model_(layer.expert.d_model),
        top_k_(layer.routing.top_k),
        round_like_model_(options.round_like_model),
        threads_(options.threads > 0 ? options.threads : AvailableCores()) {}

  void Route(const GateWeights& weights) {
    const FloatMatrix gate = Decode(weights.weight);
    const FloatMatrix bias = Decode(weights.select_bias);
    result_.expert_ids.resize(tokens_ * top_k_);
    result_.weights.resize(tokens_ * top_k_);
    result_.margins.resize(tokens_);
    std::atomic<size_t> ties = 0;
    ParallelFor(tokens_, threads_, [&](size_t token) {
      std::vector<float> logits(gate.rows);
      for (size_t expert = 0; expert < gate.rows; ++expert) {
        logits[expert] = Dot(gate.row(expert), Row(token), d_model_);
      }
      const ReferenceRouting routing =
          RouteReference(layer_.routing, model_dtype_, logits, bias.values, round_like_model_);
      std::copy(routing.expert_ids.begin(), routing.expert_ids.end(),
                result_.expert_ids.begin() + token * top_k_);
      std::copy(routing.weights.begin(), routing.weights.end(),
                result_.weights.begin() + token * top_k_);
      result_.margins[token] = routing.margin;
      ties += routing.tie ? 1 : 0;
    });
    result_.ties = ties;
  }

  absl::Status ComputeExperts(const MoeCheckpoint& checkpoint) {
    absl::btree_map<uint32_t, std::vector<size_t>> assignments;  // By expert.
    for (size_t i = 0; i < result_.expert_ids.size(); ++i) {
      assignments[result_.expert_ids[i]].push_back(i);
    }
    std::vector<std::pair<ExpertWeights, const std::vector<size_t>*>> experts;
    for (const auto& [expert, list] : assignments) {
      ASSIGN_OR_RETURN(const ExpertWeights weights, checkpoint.Expert(layer_.layer, expert));
      experts.emplace_back(weights, &list);
    }
    rows_.resize(tokens_ * top_k_ * d_model_);
    ParallelFor(experts.size(), threads_, [&](size_t index) {
      const FloatExpert expert = Decode(experts[index].first);
      for (const size_t assignment : *experts[index].second) {
        ComputeAssignment(expert, assignment);
      }
    });
    return absl::OkStatus();
  }

  // Sums the experts' rows in slot order, and the shared expert's.
  absl::Status Combine(const MoeCheckpoint& checkpoint) {
    FloatExpert shared;
    const bool has_shared = layer_.shared_intermediate_size > 0;
    if (has_shared) {
      ASSIGN_OR_RETURN(const ExpertWeights weights, checkpoint.Shared(layer_.layer));
      shared = Decode(weights);
    }
    result_.output.resize(tokens_ * d_model_);
    ParallelFor(tokens_, threads_, [&](size_t token) {
      std::vector<float> shared_row(d_model_, 0.0f);
      if (has_shared) {
        ApplyExpert(shared, Row(token), shared_row.data());
      }
      for (size_t i = 0; i < d_model_; ++i) {
        double sum = 0.0;
        for (size_t slot = 0; slot < top_k_; ++slot) {
          sum += rows_[(token * top_k_ + slot) * d_model_ + i];
        }
        result_.output[token * d_model_ + i] = static_cast<float>(sum + shared_row[i]);
      }
    });
    return absl::OkStatus();
  }

  ReferenceOutput TakeResult() { return std::move(result_); }

 private:
  const float* Row(size_t token) const { return hidden_ + token * d_model_; }

  void ComputeAssignment(const FloatExpert& expert, size_t assignment) {
    const float* const x = Row(assignment / top_k_);
    float* const target = rows_.data() + assignment * d_model_;
    const float weight = result_.weights[assignment];
    if (layer_.routing.apply == ApplyWeight::kInput) {
      std::vector<float> scaled(x, x + d_model_);
      for (float& value : scaled) {
        value *= weight;
      }
      ApplyExpert(expert, scaled.data(), target);
      return;
    }
    ApplyExpert(expert, x, target);
    for (size_t i = 0; i < d_model_; ++i) {
      target[i] *= weight;
    }
  }

  const MoeLayerDescription& layer_;
  const DType model_dtype_;
  const float* const hidden_;
  const size_t tokens_;
  const size_t d_model_;
  const size_t top_k_;
  const bool round_like_model_;
  const int threads_;
  std::vector<float> rows_;  // [tokens, top_k, d_model], weights applied.
  ReferenceOutput result_;
};

}  // namespace

absl::StatusOr<ReferenceOutput> ReferenceForward(const MoeCheckpoint& checkpoint, uint32_t layer,
                                                 absl::Span<const float> hidden, size_t tokens,
                                                 const ReferenceOptions& options) {
  const MoeLayerDescription* const description = checkpoint.model().FindLayer(layer);
  if (description == nullptr) {
    return absl::NotFoundError(absl::StrCat("layer ", layer, " is not a MoE layer"));
  }
  const size_t d_model = description->expert.d_model;
  if (hidden.size() % d_model != 0 || hidden.size() / d_model != tokens) {
    return absl::InvalidArgumentError(absl::StrCat("hidden holds ", hidden.size(), " values; ",
                                                   tokens, " tokens of ", d_model,
                                                   " are expected"));
  }
  Forward forward(*description, checkpoint.model().dtype, hidden.data(), tokens, options);
  ASSIGN_OR_RETURN(const GateWeights gate, checkpoint.Gate(layer));
  forward.Route(gate);
  RETURN_IF_ERROR(forward.ComputeExperts(checkpoint));
  RETURN_IF_ERROR(forward.Combine(checkpoint));
  return forward.TakeResult();
}

}  // namespace expertmesh
