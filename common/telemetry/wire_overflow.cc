#include "common/telemetry/wire_overflow.h"

#include <spdlog/spdlog.h>

#include <utility>

namespace expertmesh::telemetry {

WireOverflow::WireOverflow(prometheus::Registry& registry, const CounterInfo& info,
                           std::string direction)
    : family_(prometheus::BuildCounter().Name(info.name).Help(info.help).Register(registry)),
      direction_(std::move(direction)) {}

void WireOverflow::Count(uint32_t layer, uint64_t rows, float largest, absl::string_view narrow,
                         absl::string_view wider) {
  prometheus::Counter* counter = nullptr;
  bool first = false;
  {
    absl::MutexLock lock(&mutex_);
    prometheus::Counter*& known = of_layer_[layer];
    if (known == nullptr) {
      first = true;
      known = &family_.Add({{"direction", direction_}, {"layer", std::to_string(layer)}});
    }
    counter = known;
  }
  counter->Increment(static_cast<double>(rows));
  if (first) {
    spdlog::warn(
        "layer {}: {} reach {:g}, beyond what {} holds; such rows go as {}, and the metric "
        "..._wire_overflow_rows_total counts them",
        layer, direction_, largest, std::string(narrow), std::string(wider));
  }
}

}  // namespace expertmesh::telemetry
