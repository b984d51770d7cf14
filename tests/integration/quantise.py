"""Weights quantised in blocks as checkpoints hold them: FP8 E4M3 with scales of 128 x 128 values, and MXFP4.
Each function returns what is stored and what it stands for (float32)."""

import ml_dtypes
import numpy as np

FP8_BLOCK = 128
MXFP4_BLOCK = 32
# Value of each nibble: sign, two bits of exponent, one of mantissa.
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def _blocks(count, size):
    return -(-count // size)


def fp8(weight, scale_dtype="F32"):
    """(stored float8 [out, in], scales [ceil(out/128), ceil(in/128)], meaning). scale_dtype: F32, BF16, F16;
    U8 or F8_E8M0 for powers of two whose exponents are stored (UE8M0)."""
    number = {"F32": np.float32, "BF16": ml_dtypes.bfloat16, "F16": np.float16}.get(scale_dtype)
    rows, columns = weight.shape
    scales = np.empty((_blocks(rows, FP8_BLOCK), _blocks(columns, FP8_BLOCK)), np.float32)
    spread = np.empty(weight.shape, np.float32)
    for r, c in np.ndindex(scales.shape):
        place = np.s_[r * FP8_BLOCK : (r + 1) * FP8_BLOCK, c * FP8_BLOCK : (c + 1) * FP8_BLOCK]
        # Blocks of other sizes than the neighbours', so that a wrong scale shows.
        largest = np.abs(weight[place]).max() / 448 * (1 + (r + 2 * c) % 3)
        scales[r, c] = 2.0 ** np.ceil(np.log2(largest)) if number is None else number(largest)
        spread[place] = scales[r, c]
    stored = (weight.astype(np.float32) / spread).astype(ml_dtypes.float8_e4m3fn)
    meaning = stored.astype(np.float32) * spread
    if number is None:
        exponents = (np.log2(scales) + 127).astype(np.uint8)
        if scale_dtype == "F8_E8M0":
            exponents = exponents.view(ml_dtypes.float8_e8m0fnu)
        return stored, exponents, meaning
    return stored, scales.astype(number), meaning


def mxfp4(weight):
    """weight [..., out, in] -> (blocks U8 [..., out, in/32, 16], scales U8 [..., out, in/32], meaning)."""
    shape = weight.shape
    grouped = weight.astype(np.float32).reshape(*shape[:-1], shape[-1] // MXFP4_BLOCK, MXFP4_BLOCK)
    exponent = np.ceil(np.log2(np.abs(grouped).max(axis=-1) / 6)).astype(np.int32)
    scaled = np.ldexp(grouped, -exponent[..., None])
    nibbles = np.abs(scaled[..., None] - FP4).argmin(axis=-1).astype(np.uint8)
    # Even values in the low halves of their bytes.
    blocks = nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)
    meaning = np.ldexp(FP4[nibbles], exponent[..., None]).reshape(shape)
    return blocks, (exponent + 127).astype(np.uint8), meaning.astype(np.float32)
