"""The Expert service of one node, called directly."""

import grpc

from expertmesh.v1 import node_pb2
from internal_proto import ExpertStub, message
from mesh import PATIENCE


class Node:
    """Calls the Expert service of one node, from when it has loaded what its flags say."""

    def __init__(self, node):
        self._channel = grpc.insecure_channel(node.address)
        self._stub = ExpertStub(self._channel)

    def __enter__(self):
        watch = self._stub.WatchStatus(message("WatchStatusRequest")(), timeout=PATIENCE)
        for status in watch:
            if status.state == node_pb2.NODE_STATE_READY:
                break
        watch.cancel()
        return self

    def __exit__(self, *exception):
        self._channel.close()

    def describe(self):
        return self._stub.Describe(message("DescribeRequest")(), timeout=PATIENCE).description

    def hosted(self):
        return {entry.layer: list(entry.experts) for entry in self.describe().hosted}

    def load(self, experts, layers=(0, 1), slice_index=0, slice_count=1, term=0):
        request = message("LoadExpertsRequest")(
            experts=[
                node_pb2.HostedExperts(
                    layer=layer, experts=experts, slice_index=slice_index, slice_count=slice_count
                )
                for layer in layers
            ],
            term=term,
        )
        return self._stub.LoadExperts(request, timeout=PATIENCE)

    def unload(self, experts, layers=(0, 1), term=0):
        request = message("UnloadExpertsRequest")(
            experts=[node_pb2.HostedExperts(layer=layer, experts=experts) for layer in layers],
            term=term,
        )
        return self._stub.UnloadExperts(request, timeout=PATIENCE)
