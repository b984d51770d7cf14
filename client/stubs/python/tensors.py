"""Packs and unpacks the contract's tensors with the standard library only, and compares them."""

import math
import struct


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
