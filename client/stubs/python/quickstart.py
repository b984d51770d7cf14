"""The smallest useful program: asks a router for the output of one layer."""

import sys

import grpc
from expertmesh.v1 import router_pb2, router_pb2_grpc, tensor_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

# gRPC's own limit is 4 MiB.
options = [("grpc.max_receive_message_length", 1 << 30)]
router = router_pb2_grpc.RouterStub(grpc.insecure_channel(sys.argv[1], options))
x = tensor_pb2.Tensor(dtype=tensor_pb2.DTYPE_F32, shape=[1, 32], data=bytes(4 * 32))
try:
    answer = router.Forward(router_pb2.ForwardRequest(layer=1, hidden_states=x), timeout=30)
except grpc.RpcError as error:
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.reason == "EXPERTS_MISSING":
            sys.exit(f"no node holds experts {info.metadata['experts']}: try later")
    raise
print(list(answer.output.shape), len(answer.output.data), "bytes")
