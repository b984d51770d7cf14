"""Messages and stubs generated from proto/expertmesh/v1 (in `*_pb2` and `*_pb2_grpc`)."""
