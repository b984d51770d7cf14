"""Calls a router through generated Python stubs, and compares its answers with golden ones.

    forward.py ROUTER GOLDEN_DIR

The package `expertmesh` (client/python) does this with numpy and torch, and more. This program shows what is on
the wire, with the standard library only.
"""

import pathlib
import sys

import grpc
from expertmesh.v1 import router_pb2, router_pb2_grpc, tensor_pb2

from tensors import pack_bf16, pack_f32, unpack_bf16, unpack_f32, worst_error

F32, BF16 = tensor_pb2.DTYPE_F32, tensor_pb2.DTYPE_BF16
SECONDS = 30
PACK = {F32: pack_f32, BF16: pack_bf16}
UNPACK = {F32: unpack_f32, BF16: unpack_bf16}


def run(address, golden):
    """True when every answer is within its tolerance."""
    # Tensors are larger than gRPC's default limit of 4 MiB for a message received.
    channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])
    router = router_pb2_grpc.RouterStub(channel)
    model = router.DescribeModel(router_pb2.DescribeModelRequest(), timeout=SECONDS)
    layer, d_model = model.layers[0].layer, model.d_model
    print(f"{address}: {model.family}, d_model {d_model}, first MoE layer {layer}")

    hidden_states = unpack_f32((golden / "hidden_states.f32").read_bytes())
    tokens = len(hidden_states) // d_model
    good = True
    for sent, answered, name, tolerance in (
        (F32, F32, "output.f32", 1e-5),
        (BF16, F32, "output_of_bf16_input.f32", 1e-5),
        (BF16, BF16, "output_of_bf16_input.f32", 1e-2),
    ):
        request = router_pb2.ForwardRequest(
            layer=layer,
            output_dtype=answered,
            hidden_states=tensor_pb2.Tensor(
                dtype=sent, shape=[tokens, d_model], data=PACK[sent](hidden_states)
            ),
        )
        output = router.Forward(request, timeout=SECONDS).output
        expected = unpack_f32((golden / name).read_bytes())
        actual = UNPACK[output.dtype](output.data)
        if len(actual) != len(expected) or list(output.shape) != [tokens, d_model]:
            raise ValueError(
                f"the answer has shape {list(output.shape)} and {len(actual)} values; "
                f"{name} has {len(expected)}: does the router serve the golden checkpoint?"
            )
        token, error = worst_error(actual, expected, d_model)
        names = f"{tensor_pb2.Dtype.Name(sent)} to {tensor_pb2.Dtype.Name(answered)}"
        verdict = "ok" if error <= tolerance else "TOO LARGE"
        print(f"{names}: error {error:.2e} at token {token}, at most {tolerance:.0e}: {verdict}")
        good = good and error <= tolerance
    return good


def main(arguments):
    if len(arguments) != 2:
        print("usage: forward.py ROUTER GOLDEN_DIR", file=sys.stderr)
        return 2
    try:
        return 0 if run(arguments[0], pathlib.Path(arguments[1])) else 1
    except grpc.RpcError as error:
        print(f"{error.code().name}: {error.details()}", file=sys.stderr)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
