"""What calls the mesh in these checks, by the name that run.py's --clients takes."""

import importlib

import grpc
import numpy as np

import expertmesh
from expertmesh.v1 import (
    control_pb2,
    control_pb2_grpc,
    errors_pb2,
    router_pb2,
    router_pb2_grpc,
    tensor_pb2,
)

# Each caller has a connection of its own.
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
]
HEARTBEAT = None


def text_of(error):
    """What a caller sees, in one line."""
    if isinstance(error, grpc.RpcError):
        return f"{error.code().name}: {error.details()}".replace("\n", " ")
    return f"{type(error).__name__}: {error}".replace("\n", " ")


def reason_of(error):
    """The reason that the router gave; empty where none arrived."""
    if not isinstance(error, grpc.RpcError):
        return getattr(error, "reason", "")
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for name in errors_pb2.ErrorReason.keys():
                if name.removeprefix("ERROR_REASON_").encode() in value:
                    return name.removeprefix("ERROR_REASON_")
    return ""


class RawCaller:
    """Generated stubs and nothing else."""

    # What is in flight in a router that ends is lost, and callers see it.
    loses = True

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address, options=OPTIONS)
        self._router = router_pb2_grpc.RouterStub(self.channel)
        self._control = control_pb2_grpc.ControlStub(self.channel)

    def close(self):
        self.channel.close()

    @staticmethod
    def _request(layer, rows, number=0):
        tensor = tensor_pb2.Tensor(
            dtype=tensor_pb2.DTYPE_F32, shape=rows.shape, data=rows.tobytes()
        )
        return router_pb2.ForwardRequest(request_id=number, layer=layer, hidden_states=tensor)

    def forward(self, layer, rows, timeout, metadata=()):
        """Returns the output's bytes."""
        request = self._request(layer, rows)
        return self._router.Forward(request, timeout=timeout, metadata=metadata).output.data

    def many(self, items):
        """Sends (layer, rows) and HEARTBEATs on one stream. Yields the number of each item that is answered."""

        def requests():
            for number, item in enumerate(items):
                if item is HEARTBEAT:
                    yield router_pb2.ForwardRequest(request_id=number, heartbeat=True)
                else:
                    yield self._request(*item, number)

        call = self._router.ForwardStream(requests())
        try:
            for response in call:
                if response.status.code:
                    raise RuntimeError(f"{response.status.code}: {response.status.message}")
                if not response.heartbeat:
                    yield response.request_id
        finally:
            call.cancel()

    def watch(self, heartbeat_ms):
        """Yields topologies. With heartbeat_ms 0 they repeat as often as the router likes."""
        request = control_pb2.WatchTopologyRequest(heartbeat_ms=heartbeat_ms)
        for response in self._control.WatchTopology(request):
            yield response.topology


class ClientCaller:
    """expertmesh.Client, which retries, reconnects and sends heartbeats by itself."""

    loses = False

    def __init__(self, address):
        self.client = expertmesh.Client(address, timeout=120)

    def close(self):
        self.client.close()

    def forward(self, layer, rows, timeout, metadata=()):
        if metadata:
            raise NotImplementedError("this client sends no metadata of the caller's own")
        options = expertmesh.ForwardOptions(timeout=timeout)
        return np.asarray(self.client.forward(layer, rows, options).output).tobytes()

    def many(self, items):
        requests = (item for item in items if item is not HEARTBEAT)
        for answer in self.client.forward_many(requests):
            answer.unwrap()
            yield answer.index

    def watch(self, heartbeat_ms):
        if heartbeat_ms:
            raise NotImplementedError("this client asks for the ordinary heartbeats")
        if not hasattr(self.client, "watch_topology"):
            raise NotImplementedError("this client has no watch_topology")
        yield from self.client.watch_topology()


def caller(name):
    """The class for --clients: raw, expertmesh, or MODULE:CLASS for another one with the same methods."""
    known = {"raw": RawCaller, "expertmesh": ClientCaller}
    if name in known:
        return known[name]
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
