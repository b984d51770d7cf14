#include "common/net/grpc_logging.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>
#include <spdlog/spdlog.h>

namespace expertmesh::net {

void RouteGrpcLogs() {
  gpr_set_log_function([](gpr_log_func_args* line) { spdlog::debug("grpc: {}", line->message); });
  google::protobuf::SetLogHandler(nullptr);
}

}  // namespace expertmesh::net
