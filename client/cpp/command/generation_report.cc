#include "client/cpp/command/generation_report.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cpp/command/statistics.h"
#include "common/balance/measures.h"
#include "nlohmann/json.hpp"

namespace expertmesh::command {
namespace {

constexpr size_t kBarWidth = 64;

}  // namespace

std::string LoadBars(absl::Span<const uint64_t> load, size_t width) {
  static constexpr absl::string_view kBlocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  const size_t run = load.empty() ? 1 : (load.size() + width - 1) / width;
  std::vector<uint64_t> bars;
  for (size_t begin = 0; begin < load.size(); begin += run) {
    const auto part = load.subspan(begin, run);
    bars.push_back(std::accumulate(part.begin(), part.end(), uint64_t{0}));
  }
  const uint64_t highest = bars.empty() ? 0 : *std::max_element(bars.begin(), bars.end());
  std::string text;
  for (const uint64_t bar : bars) {
    // Rounded up: whatever there is can be seen.
    absl::StrAppend(&text, bar == 0 ? absl::string_view("·") : kBlocks[(bar * 8 - 1) / highest]);
  }
  return text;
}

GenerationReport::GenerationReport(const ModelDescription& model) {
  for (const MoeLayerDescription& layer : model.layers) {
    layers_[layer.layer].load.resize(layer.routing.num_experts);
  }
}

void GenerationReport::OnMoe(uint32_t layer, size_t tokens, absl::Duration took,
                             const decoder::MoeResult& result) {
  Layer& seen = layers_[layer];
  seen.ms.push_back(absl::ToDoubleMilliseconds(took));
  seen.tokens += tokens;
  for (const uint32_t expert : result.expert_ids) {
    if (expert < seen.load.size()) {
      ++seen.load[expert];
    }
  }
  moe_ += took;
  const client::ForwardTiming& timing = result.timing;
  router_ += absl::Microseconds(timing.route_us + timing.combine_us);
  queues_ += absl::Microseconds(timing.queue_us + timing.node_queue_us);
  experts_ += absl::Microseconds(timing.node_compute_us);
  if (timing.nodes == 0) {
    // No mesh: all of it is computing.
    experts_ += took;
  }
}

void GenerationReport::OnForward(absl::Duration attention, absl::Duration total) {
  attention_ += attention;
  forward_ += total;
}

std::vector<std::pair<std::string, double>> GenerationReport::Shares(absl::Duration took) const {
  const auto share = [&](absl::Duration part) {
    return took <= absl::ZeroDuration() ? 0.0 : std::max(0.0, absl::FDivDuration(part, took));
  };
  return {{"attention", share(attention_)},
          {"experts", share(experts_)},
          {"wire", share(moe_ - experts_ - router_ - queues_)},
          {"router", share(router_)},
          {"queues", share(queues_)},
          {"dense layers, head, sampling", share(took - attention_ - moe_)}};
}

std::string GenerationReport::Text(uint64_t tokens, absl::Duration took) const {
  const double seconds = absl::ToDoubleSeconds(took);
  std::string text = absl::StrFormat("%d tokens in %.2f s: %.1f tokens/s\n", tokens, seconds,
                                     seconds > 0 ? static_cast<double>(tokens) / seconds : 0.0);
  std::vector<std::string> shares;
  for (const auto& [name, share] : Shares(took)) {
    shares.push_back(absl::StrFormat("%s %.0f%%", name, 100.0 * share));
  }
  absl::StrAppend(&text, "time: ", absl::StrJoin(shares, ", "), "\n\n");
  absl::StrAppend(&text, "layer   p50 ms  MaxVio  load of each expert\n");
  for (const auto& [index, layer] : layers_) {
    absl::StrAppend(&text,
                    absl::StrFormat("%5d  %7.2f  %6.2f  ", index, Percentile(layer.ms, 0.5),
                                    balance::MaxViolation(layer.load)),
                    LoadBars(layer.load, kBarWidth), "\n");
  }
  return text;
}

nlohmann::json GenerationReport::Json(uint64_t tokens, absl::Duration took) const {
  nlohmann::json layers = nlohmann::json::array();
  for (const auto& [index, layer] : layers_) {
    layers.push_back({{"layer", index},
                      {"calls", layer.ms.size()},
                      {"tokens", layer.tokens},
                      {"p50_ms", Percentile(layer.ms, 0.5)},
                      {"p99_ms", Percentile(layer.ms, 0.99)},
                      {"max_violation", balance::MaxViolation(layer.load)},
                      {"load", layer.load}});
  }
  nlohmann::json shares = nlohmann::json::object();
  for (const auto& [name, share] : Shares(took)) {
    shares[name] = share;
  }
  const double seconds = absl::ToDoubleSeconds(took);
  return {{"tokens", tokens},
          {"seconds", seconds},
          {"tokens_per_second", seconds > 0 ? static_cast<double>(tokens) / seconds : 0.0},
          {"time_shares", shares},
          {"layers", layers}};
}

}  // namespace expertmesh::command
