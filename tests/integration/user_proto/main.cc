// Prints the bytes of a job.
#include <cstdio>

#include "acme/v1/jobs.grpc.pb.h"

int main() {
  acme::v1::Job job;
  job.set_name("a");
  job.mutable_request()->set_layer(7);
  for (const unsigned char byte : job.SerializeAsString()) {
    std::printf("%02x", byte);
  }
}
