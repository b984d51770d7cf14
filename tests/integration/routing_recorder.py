"""Stands between a caller and a router, and keeps the hidden states that pass."""

import collections
import concurrent.futures
import contextlib

import ml_dtypes
import numpy as np

import grpc
from expertmesh.v1 import router_pb2, router_pb2_grpc, tensor_pb2

DTYPES = {
    tensor_pb2.DTYPE_F32: np.dtype(np.float32),
    tensor_pb2.DTYPE_BF16: np.dtype(ml_dtypes.bfloat16),
    tensor_pb2.DTYPE_F16: np.dtype(np.float16),
}
NO_LIMIT = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class HiddenStates(router_pb2_grpc.RouterServicer):
    """rows: layer -> [tokens, d_model], as they came."""

    def __init__(self, channel):
        self._router = router_pb2_grpc.RouterStub(channel)
        self._seen = collections.defaultdict(list)

    @property
    def rows(self):
        return {layer: np.concatenate(seen) for layer, seen in self._seen.items()}

    def _keep(self, request):
        tensor = request.hidden_states
        rows = np.frombuffer(tensor.data, DTYPES[tensor.dtype]).reshape(tensor.shape)
        self._seen[request.layer].append(rows)

    def DescribeModel(self, request, context):
        return self._router.DescribeModel(request)

    def Forward(self, request, context):
        self._keep(request)
        return self._router.Forward(request)

    def ForwardStream(self, requests, context):
        for request in requests:
            if request.heartbeat:
                yield router_pb2.ForwardResponse(request_id=request.request_id, heartbeat=True)
            else:
                yield self.Forward(request, context)


@contextlib.contextmanager
def recorder(router):
    """(address, HiddenStates) of a recorder before `router`."""
    with grpc.insecure_channel(router, NO_LIMIT) as channel:
        servicer = HiddenStates(channel)
        server = grpc.server(concurrent.futures.ThreadPoolExecutor(4), options=NO_LIMIT)
        router_pb2_grpc.add_RouterServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}", servicer
        finally:
            server.stop(None).wait()
