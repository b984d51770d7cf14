"""Recorded requests: bytes of ForwardRequest in a file, made once for a checkpoint and sent to every build."""

import struct

import ml_dtypes
import numpy as np

from expertmesh import int8_blocks
from expertmesh.v1 import router_pb2, tensor_pb2
from expertmesh.v1.tensor_pb2 import DTYPE_BF16, DTYPE_F16, DTYPE_F32, DTYPE_INT8_BLOCK128

ELEMENTS = {
    DTYPE_F32: np.dtype("<f4"),
    DTYPE_F16: np.dtype("<f2"),
    DTYPE_BF16: np.dtype(ml_dtypes.bfloat16),
}


def _tensor(rows, dtype):
    if dtype == DTYPE_INT8_BLOCK128:
        data, scales = int8_blocks.quantise(rows)
        scales = scales.astype("<f4").tobytes()
    else:
        data, scales = rows.astype(ELEMENTS[dtype]), b""
    return tensor_pb2.Tensor(dtype=dtype, shape=rows.shape, scales=scales, data=data.tobytes())


class _Recorder:
    """Draws rows and token ids; every request has an id of its own."""

    def __init__(self, layers, d_model, seed):
        self._layers, self._d_model = layers, d_model
        self._rng = np.random.default_rng(seed)
        self.requests = []

    def rows(self, tokens):
        return self._rng.standard_normal((tokens, self._d_model), dtype=np.float32)

    def add(self, rows, dtype=DTYPE_F32, output=DTYPE_F32, routing=True, **fields):
        """rows: how many, or these. Layers take turns."""
        if isinstance(rows, int):
            rows = self.rows(rows)
        number = len(self.requests)
        defaults = {
            "layer": self._layers[number % len(self._layers)],
            "token_ids": self._rng.integers(0, 1 << 16, len(rows)).tolist(),
        }
        self.requests.append(
            router_pb2.ForwardRequest(
                request_id=1000 + number,
                return_routing=routing,
                output_dtype=output,
                hidden_states=_tensor(rows, dtype),
                **(defaults | fields),
            )
        )


def record(layers, d_model, seed):
    """Requests for a model with these MoE layers: the same bytes for the same arguments."""
    recorder = _Recorder(layers, d_model, seed)
    add, rows = recorder.add, recorder.rows
    # Alone, few, many; every type in and out.
    add(1)
    add(1, routing=False)
    add(2, DTYPE_BF16, DTYPE_BF16)
    add(7, output=DTYPE_BF16)
    add(64)
    add(33, DTYPE_BF16, group_sizes=[10, 20, 3])
    add(16, DTYPE_F16, DTYPE_F16, routing=False)
    add(20, DTYPE_INT8_BLOCK128, DTYPE_INT8_BLOCK128)
    add(24, routing_seed=7, group_sizes=[1, 0, 23])
    add(96, output=tensor_pb2.DTYPE_UNSPECIFIED)
    add(0)
    # Many that want the same experts.
    add(np.concatenate([np.repeat(rows(1), 12, axis=0), rows(5)]))
    # Small beside large, and what is no number.
    add(rows(6) * np.float32(10) ** np.arange(-3, 3)[:, None])
    add(np.where(np.arange(5)[:, None] == 2, np.float32(np.inf), rows(5)))
    # What is refused, and how.
    add(rows(3) * np.float32(1e6), output=DTYPE_F16)
    add(3, token_ids=[])
    add(3, token_ids=[1, 2])
    add(3, layer=max(layers) + 1)
    add(rows(3)[:, 1:])
    add(3, group_sizes=[1, 1])
    add(3, timeout_us=0)
    return [request.SerializeToString(deterministic=True) for request in recorder.requests]


def write(path, requests):
    with open(path, "wb") as file:
        for request in requests:
            file.write(struct.pack("<I", len(request)) + request)


def read(path):
    data, requests, at = path.read_bytes(), [], 0
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at)
        requests.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return requests
