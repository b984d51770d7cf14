"""A row's bits: alone, and as one of 2 to 64 rows of a request, for every family."""

import numpy as np
import pytest

from arrays import assert_same_bits
from checkpoint import make_checkpoint
from expertmesh import ForwardOptions
from families import FAMILIES
from mesh import hidden_states, shards

ROWS = 64
# Sums of more than one run of a kernel, and neither of them a multiple of what kernels like.
SIZES = dict(d_model=608, experts=16, top_k=4, intermediate=288, layers=2)


def requests(layer, x):
    """Each row alone, and then the first 2, 3, ... rows; a token is a group of its own where capacity counts."""
    spans = [(row, row + 1) for row in range(ROWS)] + [(0, end) for end in range(2, ROWS + 1)]
    for begin, end in spans:
        yield layer, x[begin:end], {"group_sizes": [1] * (end - begin)}


@pytest.mark.parametrize("strict", ["", "--strict"], ids=["plain", "strict"])
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_has_its_bits_among_any_number_of_rows(mesh, tmp_path, family, dtype, strict):
    checkpoint = make_checkpoint(tmp_path / "model", family, dtype=dtype, **SIZES)
    mesh.start(checkpoint.path, shards(2), *filter(None, [strict]))
    layer = checkpoint.moe_layers[-1]
    x = hidden_states(ROWS, checkpoint.d_model, seed=1).astype(checkpoint.dtype)
    outputs = [
        mesh.client.forward(layer, rows, ForwardOptions(output_dtype="float32", **options)).output
        for layer, rows, options in requests(layer, x)
    ]
    alone = np.concatenate(outputs[:ROWS])
    for together in outputs[ROWS:]:
        assert_same_bits(together, alone[: len(together)], f"{len(together)} rows")
