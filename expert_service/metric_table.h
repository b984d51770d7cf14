// The node's metrics. Names and labels are part of what operators rely on; deploy/metrics.md is
// made from it.
#ifndef EXPERTMESH_EXPERT_SERVICE_METRIC_TABLE_H_
#define EXPERTMESH_EXPERT_SERVICE_METRIC_TABLE_H_

#include "common/telemetry/metric_info.h"

namespace expertmesh::node::table {

// What it does.

inline constexpr telemetry::GaugeInfo kState = {"expertmesh_expert_state", "state",
                                                "1 for the state the node is in"};
inline constexpr telemetry::HistogramInfo kBatchRows = {
    "expertmesh_expert_batch_rows", "", "Token rows computed together, over all streams"};
inline constexpr telemetry::HistogramInfo kBatchRequests = {"expertmesh_expert_batch_requests", "",
                                                            "Batches of routers computed together"};
inline constexpr telemetry::HistogramInfo kQueueDurationSeconds = {
    "expertmesh_expert_queue_duration_seconds", "",
    "Time from a complete batch until its computation starts"};
inline constexpr telemetry::HistogramInfo kForwardDurationSeconds = {
    "expertmesh_expert_forward_duration_seconds", "",
    "Time to gather and compute one merged batch"};
inline constexpr telemetry::GaugeInfo kQueueRows = {"expertmesh_expert_queue_rows", "",
                                                    "Token rows waiting to be computed"};
inline constexpr telemetry::GaugeInfo kQueueBatches = {"expertmesh_expert_queue_batches", "",
                                                       "Batches waiting to be computed"};
inline constexpr telemetry::CounterInfo kLayerTokensTotal = {
    "expertmesh_expert_layer_tokens_total", "layer",
    "Assignments (token, expert) computed of a layer"};
inline constexpr telemetry::CounterInfo kTokensTotal = {
    "expertmesh_expert_tokens_total", "layer,expert",
    "Assignments computed of the busiest experts of late, or of all (--expert-metrics)"};

// What it holds.

inline constexpr telemetry::GaugeInfo kWeightsLoadedBytes = {
    "expertmesh_expert_weights_loaded_bytes", "", "Weights held"};
inline constexpr telemetry::GaugeInfo kWeightsCheckpointBytes = {
    "expertmesh_expert_weights_checkpoint_bytes", "",
    "What the experts now held take in the checkpoint"};
inline constexpr telemetry::HistogramInfo kLoadDurationSeconds = {
    "expertmesh_expert_load_duration_seconds", "",
    "Time to load experts: what was asked for at once"};

inline constexpr telemetry::GaugeInfo kDeviceMemoryUsedBytes = {
    "expertmesh_expert_device_memory_used_bytes", "",
    "Memory of the GPU in use, by whichever process; 0 with --device=cpu"};
inline constexpr telemetry::GaugeInfo kDeviceMemoryTotalBytes = {
    "expertmesh_expert_device_memory_total_bytes", "",
    "Memory that the GPU has; 0 with --device=cpu"};

// What it keeps in memory, when that is not all (--memory).

inline constexpr telemetry::CounterInfo kCacheHitsTotal = {
    "expertmesh_expert_cache_hits_total", "",
    "With --memory: experts that a batch needed and that were in memory"};
inline constexpr telemetry::CounterInfo kCacheMissesTotal = {
    "expertmesh_expert_cache_misses_total", "",
    "With --memory: experts that a batch needed and that were not in memory"};
inline constexpr telemetry::CounterInfo kCacheLoadedBytesTotal = {
    "expertmesh_expert_cache_loaded_bytes_total", "",
    "With --memory: weights packed since a batch needed them"};
inline constexpr telemetry::HistogramInfo kCacheStallSeconds = {
    "expertmesh_expert_cache_stall_seconds", "",
    "With --memory: time that a batch waited for experts that were not in memory"};
inline constexpr telemetry::GaugeInfo kCacheResidentBytes = {
    "expertmesh_expert_cache_resident_bytes", "", "With --memory: packed weights in memory"};
inline constexpr telemetry::GaugeInfo kCacheLimitBytes = {
    "expertmesh_expert_cache_limit_bytes", "", "With --memory: most packed weights in memory"};

// What went wrong.

inline constexpr telemetry::CounterInfo kRejectedTotal = {
    "expertmesh_expert_rejected_total", "reason",
    "Batches answered with an error, or dropped because their stream is gone"};
inline constexpr telemetry::CounterInfo kDeviceErrorsTotal = {
    "expertmesh_expert_device_errors_total", "kind",
    "Calls of the GPU that failed: memory (there was not enough), hardware (ECC, NVLink, the "
    "device), other"};
inline constexpr telemetry::CounterInfo kNonfiniteTokensTotal = {
    "expertmesh_expert_nonfinite_tokens_total", "",
    "Token rows received with NaN or infinite values"};
inline constexpr telemetry::HistogramInfo kWireRelativeError = {
    "expertmesh_expert_wire_relative_error", "direction,layer",
    "Relative change of a row by its encoding, of one row in each batch"};
inline constexpr telemetry::CounterInfo kWireOverflowRowsTotal = {
    "expertmesh_expert_wire_overflow_rows_total", "direction,layer",
    "Rows sent in a wider type since a finite value was beyond the link's"};

}  // namespace expertmesh::node::table

#endif  // EXPERTMESH_EXPERT_SERVICE_METRIC_TABLE_H_
