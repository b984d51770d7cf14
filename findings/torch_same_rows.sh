#!/usr/bin/env bash
# torch 2.13.0 (PyPI, CPU): a [64, 512] float32 matrix whose 64 rows are all the same, times a [512, 7] one, gives
# rows that are not all the same: several groups with different last bits, by the place of the row. Seven
# outputs are what makes it show (the rows of the result then start at every alignment); 128 do not. One thread,
# one call, no randomness. Two tokens with equal hidden states can so choose different experts where two
# scores are close, and "the same row" is no exact reference.
#
# Seen: "7 outputs: 3 or more different rows" (3 with AVX-512, 4 with AVX2), "128 outputs: 1".
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install -q torch==2.13.0 numpy

cat >rows.py <<'CODE'
import torch

torch.set_num_threads(1)
torch.manual_seed(0)


def different_rows(outputs):
    weights = torch.randn(512, outputs)
    x = torch.randn(1, 512).repeat(64, 1)
    return len({row.numpy().tobytes() for row in x @ weights})


seven, many = different_rows(7), different_rows(128)
print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}")
print(f"7 outputs: {seven} different rows of 64 equal ones; 128 outputs: {many}")
assert seven > 1 and many == 1
CODE
venv/bin/python rows.py
echo "still so in torch 2.13.0"
