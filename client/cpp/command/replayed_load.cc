#include "client/cpp/command/replayed_load.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/cpp/command/numbers.h"
#include "client/cpp/command/packed_bytes.h"
#include "client/cpp/replay/recorded_load.h"
#include "client/cpp/replay/synthetic_load.h"
#include "common/base/status_macros.h"

namespace expertmesh::command {
namespace {

constexpr uint64_t kMostExpertBytes = uint64_t{1} << 40;

absl::StatusOr<std::vector<balance::RecordedLayer>> LayersWithoutModel(const Options& options) {
  balance::RecordedModel model;
  for (uint64_t i = 0; i < std::min<uint64_t>(options.Whole("layers"), 4097); ++i) {
    model.layers.push_back(
        {.layer = static_cast<uint32_t>(i),
         .num_experts =
             static_cast<uint32_t>(std::min<uint64_t>(options.Whole("experts"), 1 << 20)),
         .top_k = static_cast<uint32_t>(std::min<uint64_t>(options.Whole("top-k"), 1 << 20))});
  }
  RETURN_IF_ERROR(balance::ValidateRecordedModel(model));
  return model.layers;
}

replay::SyntheticTraffic TrafficOf(const Options& options) {
  const double interval_s = absl::ToDoubleSeconds(options.Duration("interval"));
  const double duration_s = absl::ToDoubleSeconds(options.Duration("duration"));
  return {.tokens_per_second = options.Number("tokens-per-second"),
          .batch_tokens = static_cast<double>(options.Whole("batch-tokens")),
          .interval_s = interval_s,
          // More than can be simulated stays more.
          .intervals = static_cast<uint64_t>(std::clamp(duration_s / interval_s, 1.0, 1e9)),
          .seed = options.Whole("seed")};
}

// Layers of `load` in the order of the model's; all must be there.
absl::StatusOr<std::vector<uint64_t>> BytesByLayer(const PackedModel& packed,
                                                   const replay::LoadSource& load) {
  std::vector<uint64_t> bytes;
  for (const balance::RecordedLayer& layer : load.layers()) {
    const MoeLayerDescription* described = packed.model.FindLayer(layer.layer);
    if (described == nullptr || described->routing.num_experts != layer.num_experts) {
      return absl::InvalidArgumentError(
          absl::StrCat("the recording has a layer ", layer.layer, " of ", layer.num_experts,
                       " experts, the model has not; name the model that was served"));
    }
    bytes.push_back(
        packed.expert_bytes[static_cast<size_t>(described - packed.model.layers.data())]);
  }
  return bytes;
}

}  // namespace

absl::StatusOr<ReplayedLoad> OpenReplayedLoad(const Options& options) {
  ReplayedLoad opened;
  PackedModel packed;
  if (options.Has("model")) {
    ASSIGN_OR_RETURN(
        packed, ReadPackedModel(options.Text("model"), options.Text("compute-dtype"), "expanded"));
  }
  const absl::Duration interval = options.Duration("interval");
  if (interval < absl::Milliseconds(1) || interval > absl::Hours(24 * 365)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--interval is ", absl::FormatDuration(interval), "; use 1ms to a year"));
  }
  if (options.Has("recording")) {
    if (options.Has("load")) {
      return absl::InvalidArgumentError("--recording and --load are both given; name one");
    }
    ASSIGN_OR_RETURN(opened.load, replay::RecordedLoad::Read(options.Text("recording"),
                                                             absl::ToDoubleSeconds(interval)));
  } else {
    ASSIGN_OR_RETURN(const replay::SyntheticOptions synthetic,
                     replay::ParseSyntheticLoad(options.Has("load") ? options.Text("load")
                                                                    : "zipf:1.0+drift:0.5"));
    RETURN_IF_ERROR(CheckTokensPerSecond(options.Number("tokens-per-second")));
    std::vector<balance::RecordedLayer> layers = balance::RecordedModelOf(packed.model, {}).layers;
    if (!options.Has("model")) {
      ASSIGN_OR_RETURN(layers, LayersWithoutModel(options));
    }
    opened.load =
        std::make_unique<replay::SyntheticLoad>(synthetic, TrafficOf(options), std::move(layers));
  }
  if (options.Has("model")) {
    ASSIGN_OR_RETURN(opened.expert_bytes, BytesByLayer(packed, *opened.load));
  } else {
    ASSIGN_OR_RETURN(const uint64_t bytes, ParseBytes(options.Text("expert-bytes")));
    if (bytes > kMostExpertBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("--expert-bytes is ", bytes, "; use at most ", kMostExpertBytes));
    }
    opened.expert_bytes.assign(opened.load->layers().size(), std::max<uint64_t>(1, bytes));
  }
  return opened;
}

std::vector<OptionSpec> ReplayedLoadOptions() {
  return {{.name = "recording", .value = "NAME", .help = "recorded routing, NAME and NAME.1"},
          {.name = "load",
           .value = "LOAD",
           .help = "made-up load: uniform, zipf:S or hot:K:SHARE, then +drift:PER_HOUR and "
                   "+diurnal:AMPLITUDE (default zipf:1.0+drift:0.5)"},
          {.name = "model", .value = "DIR", .help = "layers and sizes of experts (config.json)"},
          {.name = "compute-dtype",
           .kind = OptionKind::kChoice,
           .value = "TYPE",
           .help = "that nodes keep experts in",
           .fallback = "auto",
           .choices = {"auto", "f32", "bf16"}},
          CountOption("layers", "layers, without --model", "58"),
          CountOption("experts", "experts of a layer, without --model", "256"),
          CountOption("top-k", "experts of a token, without --model", "8"),
          {.name = "expert-bytes",
           .value = "SIZE",
           .help = "an expert on a node, without --model",
           .fallback = "84MiB"},
          {.name = "tokens-per-second",
           .kind = OptionKind::kNumber,
           .value = "X",
           .help = "of a made-up load",
           .fallback = "20000"},
          CountOption("batch-tokens", "tokens of a batch of a made-up load", "256"),
          {.name = "duration",
           .kind = OptionKind::kDuration,
           .value = "TIME",
           .help = "of a made-up load",
           .fallback = "1h"},
          {.name = "interval",
           .kind = OptionKind::kDuration,
           .value = "TIME",
           .help = "step of the simulation",
           .fallback = "10s"},
          CountOption("seed", "of a made-up load", "1", 0)};
}

}  // namespace expertmesh::command
