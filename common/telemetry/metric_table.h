// Metrics of every process. deploy/metrics.md is made from it.
#ifndef EXPERTMESH_COMMON_TELEMETRY_METRIC_TABLE_H_
#define EXPERTMESH_COMMON_TELEMETRY_METRIC_TABLE_H_

#include "common/telemetry/metric_info.h"

namespace expertmesh::telemetry::table {

// The process as a whole, read when it is asked for.

inline constexpr GaugeInfo kBuildInfo = {
    "expertmesh_build_info", "process,version,commit,build_type", "1, labelled with what runs"};
inline constexpr GaugeInfo kResidentBytes = {"expertmesh_process_resident_bytes", "",
                                             "Resident set of the process"};
inline constexpr CounterInfo kMessageBytesTotal = {
    "expertmesh_process_message_bytes_total", "direction",
    "Bytes of messages that gRPC sent and received, exported spans included, without what HTTP/2 "
    "and TCP add"};
inline constexpr CounterInfo kTensorCopiedBytesTotal = {
    "expertmesh_process_tensor_copied_bytes_total", "",
    "Bytes of tensors copied or converted between messages and what is computed with"};
inline constexpr GaugeInfo kBufferedBytes = {
    "expertmesh_process_buffered_bytes", "",
    "Requests received and not yet answered, and answers not yet sent"};
inline constexpr CounterInfo kReturnedBytesTotal = {
    "expertmesh_process_returned_bytes_total", "",
    "Resident bytes given back to the system while the process was at rest"};
inline constexpr GaugeInfo kConnections = {"expertmesh_process_connections", "",
                                           "Open connections of callers"};
inline constexpr CounterInfo kConnectionsRefusedTotal = {
    "expertmesh_process_connections_refused_total", "reason",
    "Connections of callers that were closed as they came, or for what they did (resets, stalls); "
    "accept: times when one could not be accepted yet"};

// Calls by method, under the names that ready-made dashboards know.

inline constexpr CounterInfo kServerStartedTotal = {
    "grpc_server_started_total", "grpc_type,grpc_service,grpc_method", "Calls that have arrived"};
inline constexpr CounterInfo kServerHandledTotal = {"grpc_server_handled_total",
                                                    "grpc_type,grpc_service,grpc_method,grpc_code",
                                                    "Calls that were answered"};
inline constexpr HistogramInfo kServerHandlingSeconds = {
    "grpc_server_handling_seconds", "grpc_type,grpc_service,grpc_method",
    "From a call's arrival to its answer, for a stream to its end"};

}  // namespace expertmesh::telemetry::table

#endif  // EXPERTMESH_COMMON_TELEMETRY_METRIC_TABLE_H_
