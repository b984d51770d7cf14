// The smallest useful program: asks a router for the output of one layer.
#include <grpcpp/grpcpp.h>
#include <grpcpp/support/error_details.h>

#include <chrono>
#include <iostream>
#include <string>

#include "expertmesh/v1/router.grpc.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

int main(int, char** argv) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(1 << 30);  // gRPC's own limit is 4 MiB.
  auto router = expertmesh::v1::Router::NewStub(
      grpc::CreateCustomChannel(argv[1], grpc::InsecureChannelCredentials(), arguments));
  expertmesh::v1::ForwardRequest request;
  request.set_layer(1);
  request.mutable_hidden_states()->set_dtype(expertmesh::v1::DTYPE_F32);
  request.mutable_hidden_states()->add_shape(1);
  request.mutable_hidden_states()->add_shape(32);
  request.mutable_hidden_states()->set_data(std::string(4 * 32, '\0'));

  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  expertmesh::v1::ForwardResponse answer;
  const grpc::Status status = router->Forward(&context, request, &answer);
  google::rpc::Status rich;
  google::rpc::ErrorInfo info;
  if (grpc::ExtractErrorDetails(status, &rich).ok()) {
    for (const auto& detail : rich.details()) {
      if (detail.UnpackTo(&info) && info.reason() == "EXPERTS_MISSING") {
        std::cerr << "no node holds experts " << info.metadata().at("experts") << ": try later\n";
      }
    }
  }
  std::cout << status.error_message() << answer.output().data().size() << " bytes\n";
  return status.error_code();
}
