"""Messages of expertmesh.internal.v1, for which clients have no stubs: made here from the contract."""

import pathlib
import subprocess
import tempfile

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# Registers what the internal contract imports.
from expertmesh.v1 import errors_pb2, node_pb2, tensor_pb2  # noqa: F401  pylint: disable=unused-import

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"
FILE = "expertmesh/internal/v1/expert.proto"


def _load():
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run(
            ["protoc", f"-I{PROTO}", f"--descriptor_set_out={out.name}", str(PROTO / FILE)], check=True
        )
        files = descriptor_pb2.FileDescriptorSet.FromString(pathlib.Path(out.name).read_bytes())
    pool = descriptor_pool.Default()
    pool.Add(files.file[0])
    return pool.FindFileByName(FILE)


_FILE = _load()


def message(name):
    """The class of a message of the internal contract."""
    return message_factory.GetMessageClass(_FILE.message_types_by_name[name])


class ExpertStub:
    """Stub of the Expert service: a method for each of the contract."""

    def __init__(self, channel):
        service = _FILE.services_by_name["Expert"]
        for method in service.methods:
            sort = "stream" if method.client_streaming else "unary"
            sort += "_stream" if method.server_streaming else "_unary"
            call = getattr(channel, sort)(
                f"/{service.full_name}/{method.name}",
                request_serializer=lambda request: request.SerializeToString(),
                response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
            )
            setattr(self, method.name, call)
