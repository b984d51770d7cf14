"""Answers of two builds to one request: what must be equal, and where the first difference is."""

import dataclasses
from typing import Optional

import numpy as np

from arrays import assert_same_bits
from expertmesh import int8_blocks
from expertmesh.v1 import router_pb2
from expertmesh.v1.tensor_pb2 import DTYPE_INT8_BLOCK128, Dtype
from recording import ELEMENTS


@dataclasses.dataclass(frozen=True)
class Answer:
    # Status of a unary call; a stream's answers have theirs in the response.
    code: int = 0
    message: str = ""
    # Without epoch and timing, which is never the same twice.
    response: Optional[router_pb2.ForwardResponse] = None
    # The answer's epoch less the topology's when the request was sent: how often nodes came and went before is up to
    # chance. None: not compared, since a node dies meanwhile.
    epoch: Optional[int] = 0

    @property
    def ok(self):
        return self.code == 0 and self.response is not None and self.response.status.code == 0


def answer_of(response, topology_epoch):
    """response: bytes of a ForwardResponse. topology_epoch: None: the answer's is not compared."""
    response = router_pb2.ForwardResponse.FromString(response)
    epoch = None
    # An error may come before anything is asked of the mesh.
    if topology_epoch is not None:
        epoch = response.epoch and response.epoch - topology_epoch
    response.ClearField("epoch")
    response.ClearField("timing")
    return Answer(response=response, epoch=epoch)


def output_arrays(tensor):
    """Name -> array, by row and column; bytes that do not fit the shape as they are."""
    shape = tuple(tensor.shape)
    parts = {"output": (tensor.data, ELEMENTS.get(tensor.dtype, np.dtype("u1")), shape)}
    if tensor.dtype == DTYPE_INT8_BLOCK128:
        parts["output"] = (tensor.data, np.dtype("i1"), shape)
        blocks = int8_blocks.blocks_of(shape[-1]) if shape else 0
        parts["scales of output"] = (tensor.scales, np.dtype("<f4"), (*shape[:-1], blocks))
    arrays = {}
    for name, (data, dtype, extents) in parts.items():
        fits = len(data) == dtype.itemsize * int(np.prod(extents, dtype=np.int64))
        arrays[name] = np.frombuffer(data, dtype).reshape(extents) if fits else data
    return arrays


def _by_token(values, routing, dtype):
    k = routing.experts_per_token
    array = np.array(values, dtype)
    return array.reshape(-1, k) if k and array.size % k == 0 else array


def _named(answer):
    """What is compared first, by name: numbers and text by ==, arrays by their bits."""
    if answer.response is None:
        return
    response = answer.response
    yield "status", (response.status.code, response.status.message)
    yield "request_id", response.request_id
    yield "epoch since the topology's", answer.epoch
    yield "output dtype", Dtype.Name(response.output.dtype)
    yield "output shape", list(response.output.shape)
    yield from output_arrays(response.output).items()
    routing = response.routing
    yield "experts_per_token", routing.experts_per_token
    yield "assignments_per_token", list(routing.assignments_per_token)
    yield "number of expert_ids", len(routing.expert_ids)
    yield "expert_ids", _by_token(routing.expert_ids, routing, np.uint32)
    yield "number of expert_weights", len(routing.expert_weights)
    yield "expert_weights", _by_token(routing.expert_weights, routing, np.float32)
    yield "dropped", [(dropped.token, dropped.expert) for dropped in response.dropped]


def _compare(name, found, expected):
    if isinstance(found, (np.ndarray, bytes)) and isinstance(expected, (np.ndarray, bytes)):
        assert_same_bits(found, expected, name)
        return
    if isinstance(found, list) and isinstance(expected, list):
        for place, (a, b) in enumerate(zip(found, expected)):
            _compare(f"{name}: entry {place}", a, b)
        found, expected, name = len(found), len(expected), f"{name}: number"
    if found != expected:
        raise AssertionError(f"{name} is {found!r} instead of {expected!r}")


def difference(found, expected):
    """The first difference in words, by row and column where it is in rows; None without one."""
    try:
        _compare("status of the call", (found.code, found.message), (expected.code, expected.message))
        _compare("an answer", found.response is not None, expected.response is not None)
        for (name, a), (_, b) in zip(_named(found), _named(expected)):
            _compare(name, a, b)
        if found.response is not None:
            # Whatever else there is, fields that this program does not know among it.
            whole = [each.response.SerializeToString(deterministic=True) for each in (found, expected)]
            _compare("bytes of the answer", *(np.frombuffer(each, np.uint8) for each in whole))
    except AssertionError as error:
        return str(error)
    return None


def flip_bit(answer, rng):
    """(the answer with one bit of its output changed, row, column)."""
    response = router_pb2.ForwardResponse.FromString(answer.response.SerializeToString())
    rows, columns = response.output.shape
    data = bytearray(response.output.data)
    at = int(rng.integers(len(data)))
    data[at] ^= 1 << int(rng.integers(8))
    response.output.data = bytes(data)
    element = at // (len(data) // (rows * columns))
    return dataclasses.replace(answer, response=response), element // columns, element % columns
