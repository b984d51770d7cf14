"""The Expert service of one node, called directly."""

import grpc

from expertmesh.v1 import expert_pb2, expert_pb2_grpc
from mesh import PATIENCE


class Node:
    """Calls the Expert service of one node, from when it has loaded what its flags say."""

    def __init__(self, node):
        self._channel = grpc.insecure_channel(node.address)
        self._stub = expert_pb2_grpc.ExpertStub(self._channel)

    def __enter__(self):
        watch = self._stub.WatchStatus(expert_pb2.WatchStatusRequest(), timeout=PATIENCE)
        for status in watch:
            if status.state == expert_pb2.NODE_STATE_READY:
                break
        watch.cancel()
        return self

    def __exit__(self, *exception):
        self._channel.close()

    def describe(self):
        return self._stub.Describe(expert_pb2.DescribeRequest(), timeout=PATIENCE)

    def hosted(self):
        return {entry.layer: list(entry.experts) for entry in self.describe().hosted}

    def load(self, experts, layers=(0, 1), slice_index=0, slice_count=1):
        request = expert_pb2.LoadExpertsRequest(
            experts=[
                expert_pb2.HostedExperts(
                    layer=layer, experts=experts, slice_index=slice_index, slice_count=slice_count
                )
                for layer in layers
            ]
        )
        return self._stub.LoadExperts(request, timeout=PATIENCE)

    def unload(self, experts, layers=(0, 1)):
        request = expert_pb2.UnloadExpertsRequest(
            experts=[expert_pb2.HostedExperts(layer=layer, experts=experts) for layer in layers]
        )
        return self._stub.UnloadExperts(request, timeout=PATIENCE)
