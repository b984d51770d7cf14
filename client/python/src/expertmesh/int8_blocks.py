"""Rows as 8-bit integers, DTYPE_INT8_BLOCK128: blocks of 128 consecutive values of a row (its last block may be shorter), one
float32 scale to a block; value = integer * scale."""

from __future__ import annotations

from typing import Any, Tuple

import numpy as np
import numpy.typing as npt

BLOCK = 128


def blocks_of(d_model: int) -> int:
    """Blocks of one row."""
    return -(-d_model // BLOCK)


def quantise(rows: npt.NDArray[Any]) -> Tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """[tokens, d_model] of floats to integers [tokens, d_model] and scales [tokens, blocks].

    Symmetric: scale = max|x| / 127, integer = x / scale to the nearest. A block of zeros has scale 0; a block with NaN or
    infinity has scale NaN and integers 0, so that all of it is NaN when it is read.
    """
    tokens, d_model = rows.shape
    blocks = blocks_of(d_model)
    padded = np.zeros((tokens, blocks * BLOCK), np.float32)
    padded[:, :d_model] = rows
    padded = padded.reshape(tokens, blocks, BLOCK)
    peaks = np.abs(padded).max(axis=2)
    scales = np.where(np.isfinite(peaks), peaks, np.float32(np.nan)) / np.float32(127)
    divisors = scales[:, :, None]
    quotients = np.divide(padded, divisors, out=np.zeros_like(padded), where=divisors > 0)
    integers = np.rint(np.clip(quotients, -127, 127)).astype(np.int8)
    return integers.reshape(tokens, blocks * BLOCK)[:, :d_model], scales


def dequantise(
    integers: npt.NDArray[np.int8], scales: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """The reverse: float32 [tokens, d_model]."""
    of_value = np.repeat(scales, BLOCK, axis=1)[:, : integers.shape[1]]
    result: npt.NDArray[np.float32] = integers * of_value
    return result
