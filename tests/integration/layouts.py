"""How checkpoints store experts. Each layout packs experts into tensors (for a checkpoint that a test makes)
and reads one back out of tensors (for the oracle).

An expert is a dict of parts: "gate" (when gated), "up" [width, d_model] and "down" [d_model, width] as
y = x @ part.T, and with biases "gate_bias", "up_bias" and "down_bias".
"""

import dataclasses
from typing import Dict

import numpy as np

import quantise


@dataclasses.dataclass(frozen=True)
class PerExpert:
    """A tensor for each part of each expert, out x in. names: part -> name with {e}."""

    names: Dict[str, str]

    def pack(self, experts):
        return {
            name.format(e=e): expert[part]
            for e, expert in enumerate(experts)
            for part, name in self.names.items()
        }

    def read(self, get, e):
        return {part: get(name.format(e=e)) for part, name in self.names.items()}


def glu(pattern, gate="gate_proj", up="up_proj", down="down_proj"):
    """Gated experts; {part} in the pattern."""
    return PerExpert(
        {
            part: pattern.replace("{part}", name)
            for part, name in (("gate", gate), ("up", up), ("down", down))
        }
    )


@dataclasses.dataclass(frozen=True)
class Fused:
    """All experts in one tensor, gate and up in another. transposed: in x out. interleaved: gate rows are
    the even ones and up rows the odd ones; otherwise gate comes first. plain: no dimension of experts."""

    gate_up: str
    down: str
    transposed: bool = False
    interleaved: bool = False
    bias: bool = False
    plain: bool = False

    def _join(self, gate, up):
        if self.interleaved:
            return np.stack([gate, up], axis=1).reshape(-1, *gate.shape[1:])
        return np.concatenate([gate, up])

    def _split(self, joined):
        if self.interleaved:
            return joined[0::2], joined[1::2]
        return np.split(joined, 2)

    def pack(self, experts):
        gate_up = np.stack([self._join(x["gate"], x["up"]) for x in experts])
        down = np.stack([x["down"] for x in experts])
        if self.transposed:
            gate_up, down = gate_up.swapaxes(1, 2), down.swapaxes(1, 2)
        tensors = {self.gate_up: gate_up, self.down: down}
        if self.plain:
            tensors = {name: tensor[0] for name, tensor in tensors.items()}
        if self.bias:
            joined = [self._join(x["gate_bias"], x["up_bias"]) for x in experts]
            tensors[self.gate_up + "_bias"] = np.stack(joined)
            tensors[self.down + "_bias"] = np.stack([x["down_bias"] for x in experts])
        return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}

    def read(self, get, e):
        def one(name):
            return get(name) if self.plain else get(name)[e]

        def matrix(name):
            return one(name).T if self.transposed else one(name)

        expert = {"down": matrix(self.down)}
        expert["gate"], expert["up"] = self._split(matrix(self.gate_up))
        if self.bias:
            expert["gate_bias"], expert["up_bias"] = self._split(one(self.gate_up + "_bias"))
            expert["down_bias"] = one(self.down + "_bias")
        return expert


@dataclasses.dataclass(frozen=True)
class Rows:
    """DBRX: the experts' rows one below the other; w2 of an expert is in x out."""

    gate: str
    up: str
    down: str
    width: int

    def pack(self, experts):
        return {
            self.gate: np.concatenate([x["gate"] for x in experts]),
            self.up: np.concatenate([x["up"] for x in experts]),
            self.down: np.concatenate([x["down"].T for x in experts]),
        }

    def read(self, get, e):
        rows = slice(e * self.width, (e + 1) * self.width)
        return {
            "gate": get(self.gate)[rows],
            "up": get(self.up)[rows],
            "down": get(self.down)[rows].T,
        }


@dataclasses.dataclass(frozen=True)
class Mxfp4:
    """gpt-oss as released: blocks and scales, rows out x in whatever the unpacked layout is."""

    plain: Fused

    def pack(self, experts):
        gate_up = np.stack([self.plain._join(x["gate"], x["up"]) for x in experts])
        down = np.stack([x["down"] for x in experts])
        tensors = {
            name: tensor
            for name, tensor in self.plain.pack(experts).items()
            if name.endswith("_bias")
        }
        for name, weight in ((self.plain.gate_up, gate_up), (self.plain.down, down)):
            tensors[name + "_blocks"], tensors[name + "_scales"], _ = quantise.mxfp4(weight)
        return tensors

    def read(self, get, e):
        def weight(name):
            blocks, scales = get(name + "_blocks")[e], get(name + "_scales")[e]
            values = np.stack([quantise.FP4[blocks & 15], quantise.FP4[blocks >> 4]], axis=-1)
            values = values.reshape(*blocks.shape[:2], -1)
            return np.ldexp(values, scales.astype(np.int32)[..., None] - 127).reshape(
                len(blocks), -1
            )

        expert = {"down": weight(self.plain.down)}
        expert["gate"], expert["up"] = self.plain._split(weight(self.plain.gate_up))
        bias = get(self.plain.gate_up + "_bias")[e]
        expert["gate_bias"], expert["up_bias"] = self.plain._split(bias)
        expert["down_bias"] = get(self.plain.down + "_bias")[e]
        return expert


@dataclasses.dataclass(frozen=True)
class Fp8:
    """Another layout whose matrices are FP8 with a scale for each block of 128 x 128. scale_dtype: F32, BF16
    or F16; U8 or F8_E8M0, both exponents of two."""

    plain: PerExpert
    scale_dtype: str = "F32"

    def pack(self, experts):
        tensors = {}
        for name, weight in self.plain.pack(experts).items():
            stored, scales, _ = quantise.fp8(np.asarray(weight, np.float32), self.scale_dtype)
            tensors |= {name: stored, name + "_scale_inv": scales}
        return tensors

    def read(self, get, e):
        def weight(name):
            scales = get(name + "_scale_inv")
            if self.scale_dtype in ("U8", "F8_E8M0"):
                scales = np.ldexp(np.float32(1), scales.view(np.uint8).astype(np.int32) - 127)
            values = get(name).astype(np.float32)
            spread = np.kron(scales.astype(np.float32), np.ones((quantise.FP8_BLOCK,) * 2, np.float32))
            return values * spread[: values.shape[0], : values.shape[1]]

        return self.plain.read(weight, e)
