// Answers of the console in JSON.
#ifndef EXPERTMESH_ROUTER_SERVICE_CONSOLE_JSON_ANSWER_H_
#define EXPERTMESH_ROUTER_SERVICE_CONSOLE_JSON_ANSWER_H_

#include <google/protobuf/message.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/telemetry/http_server.h"
#include "nlohmann/json.hpp"

namespace expertmesh::console {

// Its text is the message of `status`.
telemetry::HttpResponse Failed(const absl::Status& status);

// Bytes that are no UTF-8 are replaced.
telemetry::HttpResponse JsonAnswer(const nlohmann::json& json);

// As protobuf writes JSON, with the fields' own names, and those that are not set as well.
telemetry::HttpResponse JsonAnswer(const google::protobuf::Message& message);
template <typename Message>
telemetry::HttpResponse JsonAnswer(const absl::StatusOr<Message>& message) {
  return message.ok() ? JsonAnswer(*message) : Failed(message.status());
}

}  // namespace expertmesh::console

#endif  // EXPERTMESH_ROUTER_SERVICE_CONSOLE_JSON_ANSWER_H_
