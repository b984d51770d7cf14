#!/usr/bin/env bash
# The headers of CUDA 13.5 for FP8 and FP4 (wheel nvidia-cuda-runtime 13.5.37, on the host) and ml_dtypes 0.6.0 make
# different block scales of the same numbers. E8M0 has powers of two alone: CUDA's constructor takes the next one above,
# ml_dtypes the nearest, so of the numbers between two powers every second one gets a scale that is twice the other's. A
# zero becomes 2^-127 with CUDA and a negative number the scale of its magnitude; ml_dtypes makes both NaN, which is what E8M0
# has for numbers that it lacks. Infinity is 2^127 there and NaN here. And a NaN that is stored as FP4 is 6 with CUDA and -0
# with ml_dtypes, as FP4 has no NaN. Neither raises anything: a checkpoint whose scales were rounded again on the other side
# is read without an error, with some blocks twice or half as large.
#
# Seen: each float32 from 1 to below 2: 4,194,303 of 8,388,608 other scales, all of (1, 1.5) and no other, CUDA's twice as large.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install -q --disable-pip-version-check nvidia-cuda-runtime==13.5.37 nvidia-cuda-crt==13.5.37 \
  nvidia-cuda-cccl==13.3.5.0.6 ml_dtypes==0.6.0 numpy==2.4.6

# Bytes of E8M0 and FP4 for the float32 numbers on standard input.
cat >convert.cc <<'CODE'
#include <cuda_fp4.h>
#include <cuda_fp8.h>

#include <cstdio>

int main() {
  float value;
  while (std::fread(&value, sizeof(value), 1, stdin) == 1) {
    std::putchar(__nv_fp8_e8m0(value).__x);
    std::putchar(__nv_fp4_e2m1(value).__x);
  }
}
CODE
include=$(dirname "$(find venv -name cuda_fp8.h)")
g++ -O2 -std=c++17 -isystem "$include" convert.cc -o convert

cat >scales.py <<'CODE'
import subprocess

import ml_dtypes
import numpy as np


def cuda(x):
    answer = subprocess.run(["./convert"], input=x.tobytes(), stdout=subprocess.PIPE, check=True).stdout
    return np.frombuffer(answer, np.uint8).reshape(-1, 2)


def ours(x, dtype):
    with np.errstate(invalid="ignore"):
        return x.astype(dtype).view(np.uint8)


def scale(byte):
    return np.uint8(byte).reshape(1).view(ml_dtypes.float8_e8m0fnu).astype(np.float32)[0]


one, two = (int(np.float32(value).view(np.uint32)) for value in (1, 2))
x = np.arange(one, two, dtype=np.uint32).view(np.float32)
theirs, nearest = cuda(x)[:, 0], ours(x, ml_dtypes.float8_e8m0fnu)
other = theirs != nearest
print(f"{other.sum()} of {len(x)} scales differ: from {x[other][0]} to {x[other][-1]}")
assert (other == ((x > 1) & (x < 1.5))).all() and (theirs[other] == nearest[other] + 1).all()

odd = np.array([0, -1, -3, np.inf, np.nan], np.float32)
theirs, nearest = cuda(odd)[:, 0], ours(odd, ml_dtypes.float8_e8m0fnu)
for value, one, two in zip(odd, theirs, nearest):
    print(f"scale of {value}: CUDA {scale(one)}, ml_dtypes {scale(two)}")
assert [int(byte) for byte in theirs] == [0, 127, 129, 254, 255]
assert (nearest == 255).all()

nan = np.array([np.nan], np.float32)
four_bits = cuda(nan)[0, 1] & 15, ours(nan, ml_dtypes.float4_e2m1fn)[0] & 15
print(f"FP4 of NaN: CUDA {four_bits[0]:#x}, ml_dtypes {four_bits[1]:#x}")
assert four_bits == (0x7, 0x8)
CODE
venv/bin/python scales.py
echo "still so in CUDA 13.5 and ml_dtypes 0.6.0"
