"""Makes the golden vectors of this folder: what the first MoE layer of a tiny checkpoint answers.

    EXPERTMESH_CLI=build/release/client/cpp/expertmesh build/venv/bin/python \\
        tests/golden/forward/make_forward_golden.py [OUTPUT_DIR]

The checkpoint is the one that `expertmesh checkpoint make` makes with the flags of checkpoint.flags: it
depends on its seed and on nothing else, so it is made again where it is needed and not kept. Its outputs are
computed by tests/integration/reference.py, which shares no code with the mesh.

The files are plain little-endian float32, row-major [5, d_model = 32], so that any language reads them
without a library:

    hidden_states.f32            what to send
    output.f32                   the answer
    output_of_bf16_input.f32     the answer when hidden_states was rounded to bf16 (to nearest, ties to even)
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import ml_dtypes
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[1] / "integration"))

import reference  # noqa: E402
from checkpoint import Checkpoint, read_safetensors  # noqa: E402

TOKENS = 5
SEED = 20240611
# An expert that was nearly chosen would be chosen by somebody's rounding.
MARGIN = 1e-3


def make_checkpoint(folder):
    """Runs `expertmesh checkpoint make` for a folder that does not exist yet."""
    flags = (HERE / "checkpoint.flags").read_text().split()
    cli = os.environ.get("EXPERTMESH_CLI")
    if not cli:
        raise SystemExit("EXPERTMESH_CLI is not set: name the expertmesh command there")
    subprocess.run(
        [cli, "checkpoint", "make", "--output", str(folder), *flags],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def load(folder):
    config = json.loads((folder / "config.json").read_text())
    tensors = {}
    for shard in sorted(folder.glob("*.safetensors")):
        tensors |= read_safetensors(shard)
    return Checkpoint(folder, config, tensors, np.dtype(np.float32))


def make_hidden_states(d_model):
    values = np.random.default_rng(SEED).standard_normal((TOKENS, d_model), dtype=np.float32)
    # Exactly between two bf16 values: who cuts off, or rounds ties up, sends something else.
    values[0, :4] = np.array([0x3F808000, 0x3F818000, 0xBF808000, 0xBF818000], "u4").view("f4")
    # Subnormal, in float32 and in bf16.
    values[1, 0] = np.float32(1e-40)
    return values


def expected(checkpoint, layer, x):
    output, route = reference.forward(checkpoint, layer, x)
    assert route.margin.min() > MARGIN, f"a token is {route.margin.min():g} from a tie; change SEED"
    return output.astype("<f4")


def main(output):
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch) / "checkpoint"
        make_checkpoint(folder)
        checkpoint = load(folder)
        layer = checkpoint.moe_layers[0]
        x = make_hidden_states(checkpoint.d_model)
        rounded = x.astype(ml_dtypes.bfloat16).astype(np.float32)
        files = {
            "hidden_states.f32": x.astype("<f4"),
            "output.f32": expected(checkpoint, layer, x),
            "output_of_bf16_input.f32": expected(checkpoint, layer, rounded),
        }
    output.mkdir(parents=True, exist_ok=True)
    for name, values in files.items():
        (output / name).write_bytes(values.tobytes())


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
