"""Calls a router through generated Python stubs, and compares its answers with golden ones.

    forward.py ROUTER GOLDEN_DIR

The package `expertmesh` (client/python) does this with numpy and torch, and more. This program shows what is on
the wire, with the standard library only.
"""

import math
import pathlib
import struct
import sys

import grpc
from expertmesh.v1 import router_pb2, router_pb2_grpc, tensor_pb2

F32, BF16 = tensor_pb2.DTYPE_F32, tensor_pb2.DTYPE_BF16
SECONDS = 30


def pack_f32(values):
    """float32, little endian. With numpy: array.astype("<f4").tobytes()."""
    return struct.pack(f"<{len(values)}f", *values)


def unpack_f32(data):
    return struct.unpack(f"<{len(data) // 4}f", data)


def pack_bf16(values):
    """The upper half of each float32, rounded to nearest, ties to even; little endian.

    With numpy: array.astype(ml_dtypes.bfloat16).tobytes().
    """
    halves = []
    for value, bits in zip(values, struct.unpack(f"<{len(values)}I", pack_f32(values))):
        # Rounding would carry a NaN with few bits into an infinity.
        halves.append(
            bits >> 16 | 0x40 if math.isnan(value) else (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
        )
    return struct.pack(f"<{len(halves)}H", *halves)


def unpack_bf16(data):
    halves = struct.unpack(f"<{len(data) // 2}H", data)
    return unpack_f32(struct.pack(f"<{len(halves)}I", *(half << 16 for half in halves)))


PACK = {F32: pack_f32, BF16: pack_bf16}
UNPACK = {F32: unpack_f32, BF16: unpack_bf16}


def worst_error(actual, expected, d_model):
    """(token, error): norm of the difference over norm of the expected row, of the worst token."""
    worst = (0, 0.0)
    for token in range(len(expected) // d_model):
        row = range(token * d_model, (token + 1) * d_model)
        difference = math.sqrt(sum((actual[i] - expected[i]) ** 2 for i in row))
        error = difference / math.sqrt(sum(expected[i] ** 2 for i in row))
        if math.isnan(error):
            return (token, error)
        if error > worst[1]:
            worst = (token, error)
    return worst


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
