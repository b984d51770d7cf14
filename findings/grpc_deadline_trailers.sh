#!/usr/bin/env bash
# gRPC 1.51.1 (libgrpc++1.51 of Debian 12): when a deadline passes on the server while a handler runs, gRPC ends the stream with
# status 4, and ends it again with the handler's own status. A client that is strict about HTTP/2 (grpclib 0.4.9) closes
# the connection, and other calls on it die. The channel argument grpc.enable_deadline_checking=0 ends that, and deadlines too.
#
# Seen, of 20 watches with a deadline of 0.3 s, each beside another one on the same connection: 17 others died; with the
# argument 0 (the server then does not end the call by itself).
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check grpclib==0.4.9 h2==4.4.1 grpcio-tools==1.71.2

cat >watch.proto <<'CODE'
syntax = "proto3";
package watching;
message Request { uint32 repeat_ms = 1; }
message Answer { uint32 number = 1; }
service Watcher { rpc Watch(Request) returns (stream Answer); }
CODE
cat >server.cc <<'CODE'
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <iostream>
#include <thread>

#include "watch.grpc.pb.h"

class Watcher final : public watching::Watcher::Service {
  grpc::Status Watch(grpc::ServerContext* context, const watching::Request* request,
                     grpc::ServerWriter<watching::Answer>* writer) override {
    writer->Write({});
    // A watch without repeats ends by itself after a second.
    for (int i = 0; !context->IsCancelled() && (request->repeat_ms() || i < 50); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      if (request->repeat_ms()) writer->Write({});
    }
    return grpc::Status(grpc::StatusCode::CANCELLED, "gone");
  }
};

int main(int count, char**) {
  Watcher service;
  int port = 0;
  grpc::ServerBuilder builder;
  if (count > 1) builder.AddChannelArgument(GRPC_ARG_ENABLE_DEADLINE_CHECKS, 0);
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const auto server = builder.BuildAndStart();
  std::cout << port << std::endl;
  server->Wait();
}
CODE
cat >client.py <<'CODE'
import asyncio
import sys

from grpclib.client import Channel
from grpclib.exceptions import GRPCError, StreamTerminatedError

import watch_grpc
import watch_pb2

GONE = (GRPCError, StreamTerminatedError, OSError, asyncio.TimeoutError)


async def lost(port):
    channel = Channel("127.0.0.1", port)
    stub = watch_grpc.WatcherStub(channel)
    try:
        async with stub.Watch.open(timeout=30) as neighbour:
            await neighbour.send_message(watch_pb2.Request(repeat_ms=20), end=True)
            await neighbour.recv_message()
            try:
                await stub.Watch(watch_pb2.Request(), timeout=0.3)
            except GONE:
                pass
            await asyncio.sleep(1)
            for _ in range(100):
                if await neighbour.recv_message() is None:
                    return True
            await neighbour.cancel()
            return False
    except GONE:
        return True
    finally:
        channel.close()


async def main(port):
    return sum([await lost(port) for _ in range(20)])


print(asyncio.run(main(int(sys.argv[1]))))
CODE
PATH=$PWD/venv/bin:$PATH venv/bin/python -m grpc_tools.protoc -I . --python_out=. --grpclib_python_out=. watch.proto
protoc --cpp_out=. --grpc_out=. --plugin=protoc-gen-grpc="$(command -v grpc_cpp_plugin)" watch.proto
# shellcheck disable=SC2046  # Words.
c++ -o server server.cc watch.pb.cc watch.grpc.pb.cc $(pkg-config --cflags --libs grpc++ protobuf)

neighbours() {
  ./server "$@" >port &
  local server=$!
  while [[ ! -s port ]]; do sleep 0.1; done
  venv/bin/python client.py "$(<port)"
  kill "$server"
  rm port
}

ordinary=$(neighbours)
without=$(neighbours off)
echo "of 20 neighbours $ordinary were lost, with grpc.enable_deadline_checking=0 $without"
if ((ordinary == 0 || without > 0)); then
  echo "gRPC no longer ends streams twice, or does so without its deadlines, too" >&2
  exit 1
fi
