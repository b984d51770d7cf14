"""Arrays to requests, and answers to arrays. Shared by both clients; does no I/O."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union

import ml_dtypes
import numpy as np
import numpy.typing as npt

from expertmesh import errors, int8_blocks
from expertmesh.types import (
    ArrayLike,
    DTypeLike,
    ForwardOptions,
    ForwardResult,
    ForwardTiming,
    Health,
)
from expertmesh.v1 import balance_pb2, placement_pb2, router_pb2, tensor_pb2

# What forward_many sends: (layer, array), or with options of this request alone.
ManyItem = Union[Tuple[int, ArrayLike], Tuple[int, ArrayLike, ForwardOptions]]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_TO_WIRE: Dict[np.dtype[Any], tensor_pb2.Dtype] = {
    np.dtype(np.float32): tensor_pb2.DTYPE_F32,
    np.dtype(np.float16): tensor_pb2.DTYPE_F16,
    BFLOAT16: tensor_pb2.DTYPE_BF16,
}
_FROM_WIRE = {wire: dtype for dtype, wire in _TO_WIRE.items()}
_NAMES: Dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "f32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "f16": np.dtype(np.float16),
    "bfloat16": BFLOAT16,
    "bf16": BFLOAT16,
}
_ACCEPTED = "float32, float16 or bfloat16"


@dataclasses.dataclass(frozen=True)
class Shape:
    """What decoding an answer needs to remember of its request."""

    leading: Tuple[int, ...]
    d_model: int
    torch: bool


def _is_torch(value: Any) -> bool:
    # A torch tensor exists only if its owner imported torch: this package never does.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _dtype(value: DTypeLike) -> np.dtype[Any]:
    name = str(value)
    if name.startswith("torch."):
        name = name[len("torch.") :]
    if name in _NAMES:
        return _NAMES[name]
    try:
        return np.dtype(value)
    except TypeError:
        raise errors.InvalidArgument(f"output_dtype is {value!r}; use {_ACCEPTED}") from None


def wire_dtype(value: DTypeLike) -> tensor_pb2.Dtype:
    """The wire's enum for a dtype given by name, as numpy dtype or as torch dtype."""
    if value is None:
        return tensor_pb2.DTYPE_UNSPECIFIED
    dtype = _dtype(value)
    if dtype not in _TO_WIRE:
        raise errors.InvalidArgument(f"output_dtype is {dtype}; use {_ACCEPTED}")
    return _TO_WIRE[dtype]


def _to_numpy(array: ArrayLike) -> npt.NDArray[Any]:
    if not _is_torch(array):
        return np.asarray(array)
    torch = sys.modules["torch"]
    array = array.detach().cpu().contiguous()
    if array.dtype == torch.bfloat16:
        # numpy has no bfloat16 of its own: hand the bits over.
        bits: npt.NDArray[Any] = array.view(torch.int16).numpy()
        return bits.view(BFLOAT16)
    result: npt.NDArray[Any] = array.numpy()
    return result


def _whole_numbers(name: str, values: ArrayLike) -> List[int]:
    """`values`, which may have any shape, as a flat list; each must fit into 32 bits."""
    array = _to_numpy(values).reshape(-1)
    if array.size and array.dtype.kind not in "iu":
        raise errors.InvalidArgument(f"{name} has dtype {array.dtype}; use whole numbers")
    if array.size and (array.min() < 0 or array.max() >= 2**32):
        raise errors.InvalidArgument(
            f"{name} has values from {array.min()} to {array.max()}; use 0 to 2**32 - 1"
        )
    result: List[int] = array.tolist()
    return result


def _encode_rows(rows: npt.NDArray[Any], int8: bool) -> tensor_pb2.Tensor:
    """[tokens, d_model] of a type of the wire, little endian."""
    if int8:
        integers, scales = int8_blocks.quantise(rows)
        return tensor_pb2.Tensor(
            dtype=tensor_pb2.DTYPE_INT8_BLOCK128,
            shape=rows.shape,
            data=integers.tobytes(),
            scales=scales.astype("<f4", copy=False).tobytes(),
        )
    wire = _TO_WIRE[rows.dtype.newbyteorder("=")]
    return tensor_pb2.Tensor(dtype=wire, shape=rows.shape, data=rows.tobytes())


def _wire_output_dtype(options: ForwardOptions, array_dtype: np.dtype[Any]) -> tensor_pb2.Dtype:
    if options.int8_output:
        if options.output_dtype is not None:
            raise errors.InvalidArgument(
                f"output_dtype is {options.output_dtype!r} and int8_output is set too, whose output is "
                "float32; leave one out"
            )
        return tensor_pb2.DTYPE_INT8_BLOCK128
    if options.int8_hidden_states and options.output_dtype is None:
        # The router would take the type that the rows came in.
        return _TO_WIRE[array_dtype]
    return wire_dtype(options.output_dtype)


def encode_request(
    layer: int, array: ArrayLike, options: ForwardOptions, *, request_id: int = 0
) -> Tuple[router_pb2.ForwardRequest, Shape]:
    """Builds the request for hidden states [..., d_model]; copies them once.

    Neither the timeout is in it (a unary call has it as the deadline of the RPC) nor the trace context.
    """
    if not isinstance(options, ForwardOptions):
        raise errors.InvalidArgument(f"options are {options!r}; use expertmesh.ForwardOptions(...)")
    values = _to_numpy(array)
    if values.ndim < 2:
        raise errors.InvalidArgument(
            f"array has shape {values.shape}; hidden states are [tokens, d_model] or [..., d_model]"
        )
    if values.dtype.newbyteorder("=") not in _TO_WIRE:
        raise errors.InvalidArgument(
            f"array has dtype {values.dtype}; convert it to {_ACCEPTED} first"
        )
    if not 0 <= layer < 2**32:
        raise errors.InvalidArgument(f"layer is {layer}; use the index of a layer of the model")
    dtype = values.dtype.newbyteorder("=")
    # The wire is little endian.
    values = values.astype(dtype.newbyteorder("<"), copy=False)
    leading, d_model = values.shape[:-1], values.shape[-1]
    tokens = int(np.prod(leading, dtype=np.int64))
    request = router_pb2.ForwardRequest(
        request_id=request_id,
        layer=layer,
        return_routing=options.return_routing,
        output_dtype=_wire_output_dtype(options, dtype),
        select_bias=(
            router_pb2.SELECT_BIAS_CHECKPOINT
            if options.checkpoint_bias
            else router_pb2.SELECT_BIAS_UNSPECIFIED
        ),
        hidden_states=_encode_rows(values.reshape(tokens, d_model), options.int8_hidden_states),
    )
    if options.group_sizes is not None:
        request.group_sizes.extend(_whole_numbers("group_sizes", options.group_sizes))
    if options.token_ids is not None:
        request.token_ids.extend(_whole_numbers("token_ids", options.token_ids))
    if options.routing_seed is not None:
        if not 0 <= options.routing_seed < 2**64:
            raise errors.InvalidArgument(
                f"routing_seed is {options.routing_seed}; use a number from 0 to 2**64 - 1"
            )
        request.routing_seed = options.routing_seed
    return request, Shape(leading, d_model, _is_torch(array))


def _elements(tensor: tensor_pb2.Tensor, dtype: np.dtype[Any], shape: Shape) -> npt.NDArray[Any]:
    wanted = shape.leading + (shape.d_model,)
    data = tensor.data
    count = int(np.prod(wanted, dtype=np.int64))
    if len(data) != count * dtype.itemsize or int(np.prod(tensor.shape, dtype=np.int64)) != count:
        # A faulty answer may have a million of them.
        shown = f"shape {list(tensor.shape)}" if len(tensor.shape) <= 8 else f"{len(tensor.shape)} dimensions"
        raise errors.Internal(
            f"output has {shown} and {len(data)} bytes; expected "
            f"{list(wanted)} of {dtype}, {count * dtype.itemsize} bytes"
        )
    return np.frombuffer(data, dtype=dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(wanted)


def _decode_int8(tensor: tensor_pb2.Tensor, shape: Shape) -> npt.NDArray[np.float32]:
    integers = _elements(tensor, np.dtype(np.int8), shape)
    tokens = int(np.prod(shape.leading, dtype=np.int64))
    blocks = int8_blocks.blocks_of(shape.d_model)
    if len(tensor.scales) != tokens * blocks * 4:
        raise errors.Internal(
            f"output has {len(tensor.scales)} bytes of scales; expected {tokens * blocks * 4}"
        )
    scales = np.frombuffer(tensor.scales, "<f4").astype(np.float32, copy=False)
    rows = int8_blocks.dequantise(
        integers.reshape(tokens, shape.d_model), scales.reshape(tokens, blocks)
    )
    return rows.reshape(shape.leading + (shape.d_model,))


def _decode_output(tensor: tensor_pb2.Tensor, shape: Shape) -> Any:
    if tensor.dtype == tensor_pb2.DTYPE_INT8_BLOCK128:
        dtype = np.dtype(np.float32)
        output: npt.NDArray[Any] = _decode_int8(tensor, shape)
    else:
        known = _FROM_WIRE.get(tensor.dtype)
        if known is None:
            raise errors.Internal(f"output has dtype {tensor.dtype}, which this client does not know")
        dtype = known
        output = _elements(tensor, dtype, shape)
    if not shape.torch:
        return output
    torch = sys.modules["torch"]
    # torch has no read-only tensors, so this one owns its memory.
    if dtype == BFLOAT16:
        return torch.from_numpy(output.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(output.copy())


def _decode_routing(
    routing: router_pb2.Routing, shape: Shape
) -> Tuple[npt.NDArray[np.uint32], npt.NDArray[np.float32], Optional[npt.NDArray[np.uint32]]]:
    """Ids, weights and (where tokens differ) the number of experts of each token."""
    counts = None
    wanted: Tuple[int, ...] = (*shape.leading, routing.experts_per_token)
    if routing.assignments_per_token:
        counts = np.array(routing.assignments_per_token, dtype=np.uint32)
        if counts.size != int(np.prod(shape.leading, dtype=np.int64)):
            raise errors.Internal(
                f"routing has {counts.size} assignments_per_token; expected {list(shape.leading)}"
            )
        wanted = (int(counts.sum(dtype=np.int64)),)
        counts = counts.reshape(shape.leading)
    count = int(np.prod(wanted, dtype=np.int64))
    if len(routing.expert_ids) != count or len(routing.expert_weights) != count:
        raise errors.Internal(
            f"routing has {len(routing.expert_ids)} ids and {len(routing.expert_weights)} "
            f"weights; expected {list(wanted)}"
        )
    expert_ids = np.array(routing.expert_ids, dtype=np.uint32).reshape(wanted)
    expert_weights = np.array(routing.expert_weights, dtype=np.float32).reshape(wanted)
    return expert_ids, expert_weights, counts


def decode_response(response: router_pb2.ForwardResponse, shape: Shape) -> ForwardResult:
    """Turns an answer into arrays; raises the error that the answer carries."""
    if response.status.code != 0:
        raise errors.from_status(response.status)
    expert_ids = expert_weights = counts = None
    if response.HasField("routing"):
        expert_ids, expert_weights, counts = _decode_routing(response.routing, shape)
    dropped = np.array([(d.token, d.expert) for d in response.dropped], dtype=np.uint32)
    timing = response.timing
    return ForwardResult(
        output=_decode_output(response.output, shape),
        epoch=response.epoch,
        expert_ids=expert_ids,
        expert_weights=expert_weights,
        timing=ForwardTiming(
            queue_us=timing.queue_us,
            route_us=timing.route_us,
            experts_us=timing.experts_us,
            combine_us=timing.combine_us,
            batch_tokens=timing.batch_tokens,
            nodes=timing.nodes,
            node_queue_us=timing.node_queue_us,
            node_compute_us=timing.node_compute_us,
        ),
        assignments_per_token=counts,
        dropped=dropped.reshape(-1, 2),
    )


def encode_bias(bias: Union[balance_pb2.Bias, Mapping[int, ArrayLike]]) -> balance_pb2.Bias:
    """A bias as it is, or one made of {layer: [num_experts]}."""
    if isinstance(bias, balance_pb2.Bias):
        return bias
    encoded = balance_pb2.Bias()
    for layer in sorted(bias):
        values = _to_numpy(bias[layer])
        if values.ndim != 1 or values.dtype.kind not in "fiu" or not 0 <= layer < 2**32:
            raise errors.InvalidArgument(
                f"bias of layer {layer} has shape {values.shape} and dtype {values.dtype}; give an index of "
                "a layer, and one number for each expert"
            )
        encoded.layers.add(layer=layer, values=values.astype(np.float32))
    return encoded


def encode_placement_policy(policy: Mapping[str, Any]) -> placement_pb2.PlacementPolicy:
    """Fields of a PlacementPolicy by name."""
    try:
        return placement_pb2.PlacementPolicy(**policy)
    except (TypeError, ValueError) as error:
        names = ", ".join(placement_pb2.PlacementPolicy.DESCRIPTOR.fields_by_name)
        raise errors.InvalidArgument(f"policy: {error}; its fields are {names}") from None


HEALTH_METHOD = "grpc.health.v1.Health/Check"


def encode_health_request(service: str) -> bytes:
    """HealthCheckRequest{service = 1}, by hand: grpcio-health-checking would narrow the protobuf range
    that this package works with."""
    name = service.encode()
    if len(name) > 127:
        raise errors.InvalidArgument(
            f"service name has {len(name)} bytes; at most 127 are accepted"
        )
    return b"\x0a" + bytes([len(name)]) + name if name else b""


def decode_health_response(data: bytes) -> Health:
    """HealthCheckResponse{status = 1}; an absent field is UNKNOWN."""
    if len(data) >= 2 and data[0] == 0x08 and data[1] < len(Health):
        return Health(data[1])
    return Health.UNKNOWN


# Tensors are larger than gRPC's default limit for received messages; the router's own limit holds. As the C++
# client and the command, this one does not go through http_proxy and the like of the environment: routers
# are near, and such a proxy is for the way out.
CHANNEL_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
)
