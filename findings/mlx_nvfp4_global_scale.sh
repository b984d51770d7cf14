#!/usr/bin/env bash
# mlx 0.32.4 (PyPI, mlx[cpu]): the `global_scale` of its NVFP4 is the largest magnitude of the tensor. In checkpoints the
# float32 beside the scales is a factor: modelopt writes that magnitude divided by 6 * 448 (weight_scale_2, to multiply
# by), compressed-tensors the inverse (weight_global_scale, to divide by). Packed weights and block scales are the same
# bytes in all three, so the number fits in every case, without an error: handed over as modelopt has it, weights come out
# 2,688 times too small. And quantised without it, as is the default, a tensor of small weights becomes zeros.
#
# Seen, weights N(0, 0.001), norm of what mlx unpacks to that of the weights: with the magnitude 1.000, with modelopt's
# number 0.000372 = 1 / 2688, with compressed-tensors' 1.2e+08; quantised without one: 0.000, relative error 1.00.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install -q --disable-pip-version-check "mlx[cpu]==0.32.4" numpy==2.4.6 ml_dtypes==0.6.0

cat >scale.py <<'CODE'
import ml_dtypes
import mlx.core as mx
import numpy as np

mx.set_default_device(mx.cpu)
BLOCK, LARGEST = 16, np.float32(6 * 448)  # inputs that share a scale; the largest E2M1 times the largest E4M3
weights = (np.random.default_rng(0).standard_normal((64, 2048)) / 1000).astype(np.float32)
magnitude = np.abs(weights).max()


def packed(factor):
    """(bytes, block scales) of a checkpoint: weight = E2M1 value * E4M3 scale * factor."""
    blocks = weights.reshape(len(weights), -1, BLOCK)
    scales = (np.abs(blocks).max(axis=2) / 6 / factor).astype(ml_dtypes.float8_e4m3fn)
    values = blocks / (scales.astype(np.float32) * factor)[:, :, None]
    codes = values.astype(ml_dtypes.float4_e2m1fn).view(np.uint8).reshape(weights.shape)
    return codes[:, 0::2] | codes[:, 1::2] << 4, scales.view(np.uint8)


def unpacked(codes, scales, **options):
    values = mx.dequantize(mx.array(codes), mx.array(scales), mode="nvfp4", **options)
    return np.array(values.astype(mx.float32))


def size(values):
    return np.linalg.norm(values) / np.linalg.norm(weights)


factor = magnitude / LARGEST
codes, scales = packed(factor)
checkpoint = codes.view(np.uint32), scales
numbers = {"magnitude": magnitude, "modelopt's": factor, "compressed-tensors'": 1 / factor}
sizes = {}
for name, number in numbers.items():
    sizes[name] = size(unpacked(*checkpoint, global_scale=mx.array(np.float32(number))))
    print(f"mlx {mx.__version__}, global_scale the {name} number {number:.4g}: {sizes[name]:.6g} times the weights")
assert abs(sizes["magnitude"] - 1) < 0.02
assert abs(sizes["modelopt's"] * LARGEST - 1) < 0.02 and sizes["compressed-tensors'"] > 1e6

own_codes, own_scales = mx.quantize(mx.array(weights), mode="nvfp4", global_scale=mx.array(magnitude))
same = (np.array(own_scales) == scales).mean()
print(f"quantised by mlx with the magnitude: {same:.1%} of the block scales are the checkpoint's bytes")
plain = [np.array(part) for part in mx.quantize(mx.array(weights), mode="nvfp4")]
without = size(unpacked(*plain))
print(f"quantised by mlx without: {without:.6g} times the weights")
assert same > 0.99 and without == 0
CODE
venv/bin/python scale.py
echo "still so in mlx 0.32.4"
