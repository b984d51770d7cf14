// Metrics as text: Prometheus' format 0.0.4, and OpenMetrics 1.0.0 with exemplars.
#ifndef EXPERTMESH_COMMON_TELEMETRY_EXPOSITION_H_
#define EXPERTMESH_COMMON_TELEMETRY_EXPOSITION_H_

#include <prometheus/metric_family.h>

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/telemetry/exemplars.h"

namespace expertmesh::telemetry {

enum class Exposition { kText, kOpenMetrics };

// What a client gets that sends this Accept header: the one it likes better, OpenMetrics where it
// likes both alike, and text where it knows neither.
Exposition ChooseExposition(absl::string_view accept);

// For the answer's header.
const char* ContentType(Exposition exposition);

// Whatever labels and help texts hold, the answer can be read: they are escaped, and what is no
// UTF-8 in them is replaced. Families of one name are made one, and of two series with the same
// labels the first is left. `exemplars` are those of any of these families.
std::string Expose(const std::vector<prometheus::MetricFamily>& families, Exposition exposition,
                   const std::vector<const Exemplars*>& exemplars = {});

}  // namespace expertmesh::telemetry

#endif  // EXPERTMESH_COMMON_TELEMETRY_EXPOSITION_H_
