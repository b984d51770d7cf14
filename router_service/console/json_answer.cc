#include "router_service/console/json_answer.h"

#include <google/protobuf/util/json_util.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace expertmesh::console {
namespace {

using telemetry::HttpResponse;

int HttpStatusOf(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
      return 400;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kFailedPrecondition:
      return 409;
    default:
      return 500;
  }
}

HttpResponse JsonText(std::string text) {
  HttpResponse response;
  response.content_type = "application/json";
  response.body = std::move(text);
  response.body += "\n";
  return response;
}

}  // namespace

HttpResponse Failed(const absl::Status& status) {
  HttpResponse response;
  response.status = HttpStatusOf(status.code());
  response.body = absl::StrCat(status.message(), "\n");
  return response;
}

HttpResponse JsonAnswer(const nlohmann::json& json) {
  return JsonText(json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

HttpResponse JsonAnswer(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  std::string text;
  if (const auto status = google::protobuf::util::MessageToJsonString(message, &text, options);
      !status.ok()) {
    return Failed(absl::InternalError(status.ToString()));
  }
  return JsonText(std::move(text));
}

}  // namespace expertmesh::console
