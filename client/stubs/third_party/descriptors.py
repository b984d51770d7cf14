"""Writes the protocols that some languages have no library for, as descriptors that protoc takes in place of files
(--descriptor_set_in): google.rpc, health and reflection, as Google's and gRPC's own packages have them.

    descriptors.py OUTPUT
"""

import pathlib
import sys

from google.protobuf import any_pb2, descriptor_pb2, duration_pb2, text_format
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2


def main(output):
    files = descriptor_pb2.FileDescriptorSet()
    for module in (any_pb2, duration_pb2, status_pb2, error_details_pb2, health_pb2, reflection_pb2):
        module.DESCRIPTOR.CopyToProto(files.file.add())
    # The packages of Python have them under other paths than the protocols, and reflection in its first
    # version, which differs from v1 in its name.
    text = text_format.MessageToString(files)
    for old, new in (
        ("grpc_health/", "grpc/health/"),
        ("grpc_reflection/", "grpc/reflection/"),
        ("v1alpha", "v1"),
    ):
        text = text.replace(old, new)
    renamed = text_format.Parse(text, descriptor_pb2.FileDescriptorSet())
    pathlib.Path(output).write_bytes(renamed.SerializeToString())


if __name__ == "__main__":
    main(sys.argv[1])
