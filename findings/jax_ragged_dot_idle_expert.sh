#!/usr/bin/env bash
# jax 0.10.2 (PyPI, CPU): jax.lax.ragged_dot, the product of tokens grouped by expert, multiplies every token by every
# expert and masks the rest away: its floating-point operations grow with the number of experts, not with the tokens'
# own. And since zero times NaN is NaN, one NaN or infinity in the weights of an expert that has no token at all comes out
# in the answer of every token. A product of each group by itself has neither.
#
# Seen, 40 tokens, all for expert 0: 1.0 times the operations needed with 1 expert, 8.5 with 8, 68 with 64; with NaN or Inf
# in one weight of idle expert 1: a column of 40 NaN, by groups 0.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install -q --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6

cat >idle.py <<'CODE'
import jax
import numpy as np

TOKENS, WIDTH, OUTPUTS = 40, 64, 32
random = np.random.default_rng(0)
x = random.standard_normal((TOKENS, WIDTH)).astype(np.float32)
ragged_dot = jax.jit(jax.lax.ragged_dot)


def expert_weights(experts):
    return random.standard_normal((experts, WIDTH, OUTPUTS)).astype(np.float32)


def all_to_first(experts):
    sizes = np.zeros(experts, np.int32)
    sizes[0] = TOKENS
    return sizes


def work(experts):
    compiled = ragged_dot.lower(x, expert_weights(experts), all_to_first(experts)).compile()
    return compiled.cost_analysis()["flops"] / (2 * TOKENS * WIDTH * OUTPUTS)


def by_groups(weights, sizes):
    ends = np.cumsum(sizes)
    return np.concatenate([x[end - size:end] @ w for w, size, end in zip(weights, sizes, ends)])


def bad_numbers(damage):
    """How many of each expert's outputs are NaN or infinite when idle expert 1 has one such weight."""
    weights, sizes = expert_weights(8), all_to_first(8)
    weights[1, 0, 0] = damage
    ragged, grouped = np.array(ragged_dot(x, weights, sizes)), by_groups(weights, sizes)
    fine = np.isfinite(ragged)
    assert np.allclose(ragged[fine], grouped[fine], rtol=1e-4, atol=1e-4)
    return int((~fine).sum()), int((~np.isfinite(grouped)).sum())


assert jax.default_backend() == "cpu"
print(f"jax {jax.__version__}")
times = {experts: work(experts) for experts in (1, 8, 64)}
print("operations, of those needed: " + ", ".join(f"{t:.1f} with {experts}" for experts, t in times.items()))
assert times[1] < 1.5 and times[8] >= 8 and times[64] >= 64
for damage in (np.nan, np.inf):
    ragged, grouped = bad_numbers(damage)
    print(f"one weight of an idle expert is {damage}: {ragged} numbers of {TOKENS * OUTPUTS} are bad, by groups {grouped}")
    assert ragged == TOKENS and grouped == 0
CODE
JAX_PLATFORMS=cpu venv/bin/python idle.py
echo "still so in jax 0.10.2"
