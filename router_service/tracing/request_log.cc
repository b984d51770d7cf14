#include "router_service/tracing/request_log.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/peer_text.h"
#include "common/telemetry/logging.h"
#include "router_service/tracing/spans_of_batch.h"

namespace expertmesh::tracing {
namespace {

constexpr size_t kMostOfMessage = 200;

std::string Millis(absl::Duration time) {
  return absl::StrFormat("%.1f ms", absl::ToDoubleMilliseconds(time));
}

// The last call of a node that failed; nothing when none did.
std::string LostCall(const TraceRecord& record) {
  const auto lost =
      std::find_if(record.calls.rbegin(), record.calls.rend(),
                   [](const CallRecord& call) { return call.code != absl::StatusCode::kOk; });
  if (lost == record.calls.rend()) {
    return "";
  }
  return absl::StrCat("; node ", PeerText(lost->node->node_id, kMostOfMessage), ": ",
                      PeerText(record.Text(lost->message), kMostOfMessage));
}

std::string LineOf(const TraceRecord& record, const RequestRecord& request) {
  const std::string what =
      absl::StrCat("layer ", record.layer, ": a request of ", request.tokens, " tokens ");
  const absl::Duration time = request.answered - request.arrival;
  if (request.code != absl::StatusCode::kOk) {
    return absl::StrCat(what, "failed with ", absl::StatusCodeToString(request.code), " after ",
                        Millis(time), LostCall(record));
  }
  std::string line = absl::StrCat(what, "was slow: OK after ", Millis(time));
  if (record.dispatched) {
    absl::StrAppend(&line, ", queue ", Millis(record.closed - request.arrival), ", nodes ",
                    Millis(record.received - record.planned));
  }
  return line;
}

}  // namespace

void RequestLog::Add(const TraceRecord& record) {
  for (const RequestRecord& request : record.requests) {
    if (!IsServersFault(request.code) && request.keep != Keep::kSlow) {
      continue;
    }
    if (const std::optional<uint64_t> left_out = limit_.Take()) {
      const telemetry::LogTrace trace(request.span);
      spdlog::warn("{}{}", LineOf(record, request), LeftOutText(*left_out));
    }
  }
}

}  // namespace expertmesh::tracing
