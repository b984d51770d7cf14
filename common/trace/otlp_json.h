// Traces as OTLP/JSON: the form that tools import.
#ifndef EXPERTMESH_COMMON_TRACE_OTLP_JSON_H_
#define EXPERTMESH_COMMON_TRACE_OTLP_JSON_H_

#include <string>

#include "common/trace/otlp.pb.h"

namespace expertmesh::trace {

// As OpenTelemetry writes an OTLP TracesData in JSON: ids in hexadecimal,
// enums as numbers, integers of 64 bits as texts.
std::string ToOtlpJson(const internal::otlp::TracesData& data);

}  // namespace expertmesh::trace

#endif  // EXPERTMESH_COMMON_TRACE_OTLP_JSON_H_
