// grpc.health.v1 for a GrpcServer. (gRPC's own would start threads that poll beside ours.)
#ifndef EXPERTMESH_COMMON_NET_HEALTH_SERVICE_H_
#define EXPERTMESH_COMMON_NET_HEALTH_SERVICE_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/net/grpc_server.h"

namespace expertmesh::net {

// Thread-safe. Must outlive the server that serves its methods.
class HealthService {
 public:
  std::vector<RawUnaryMethod> UnaryMethods();  // Check and List.
  RawStreamMethod WatchMethod();

  void SetServing(const std::string& service, bool serving);
  // All that was known is not serving from now on, whatever is set later; watches end.
  void Shutdown();

 private:
  class WatchHandler;
  struct Watch {
    std::string service;
    std::shared_ptr<ServerStreamSink> sink;
  };

  absl::StatusOr<Frame> Check(const Frame& request) const;
  Frame List() const;
  void AddWatch(const Frame& request, std::shared_ptr<ServerStreamSink> sink);
  Frame AnswerLocked(const std::string& service) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable absl::Mutex mutex_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<std::string, bool> serving_ ABSL_GUARDED_BY(mutex_);
  // Kept until their caller has gone, which is looked at whenever there is another one.
  std::vector<Watch> watches_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_HEALTH_SERVICE_H_
