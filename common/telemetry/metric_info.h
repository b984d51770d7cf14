// What a metric is, as the tables of metrics say it: common/telemetry/metric_table.h and its like
// in the rooms of the processes. deploy/metric_table.py reads these tables: docs, dashboards and a
// lint are made from them.
#ifndef EXPERTMESH_COMMON_TELEMETRY_METRIC_INFO_H_
#define EXPERTMESH_COMMON_TELEMETRY_METRIC_INFO_H_

namespace expertmesh::telemetry {

// An entry of a table is written as
//
//   inline constexpr telemetry::CounterInfo kTokensTotal = {"expertmesh_router_tokens_total",
//                                                           "layer", "Tokens accepted"};
//
// and called as its metric is, without expertmesh_ and the process. Labels are separated by commas.
// The unit is the last word of the name (without _total), where that is seconds or bytes. Each kind
// is a type of its own, so that none is registered as another.
struct CounterInfo {
  const char* name;
  const char* labels;
  const char* help;
};

struct GaugeInfo {
  const char* name;
  const char* labels;
  const char* help;
};

struct HistogramInfo {
  const char* name;
  const char* labels;
  const char* help;
};

}  // namespace expertmesh::telemetry

#endif  // EXPERTMESH_COMMON_TELEMETRY_METRIC_INFO_H_
