"""What callers feel while another one misbehaves: a table of answers, failures and latencies.

    build/venv/bin/python tests/bench/bad_neighbour.py [--seconds 5]

A mesh of four nodes, each expert on two, answers two callers, at first alone. Takes this tree's programs from the
environment, or else from build/release.
"""

import argparse
import concurrent.futures
import pathlib
import sys
import tempfile
import time

import versus  # Sets the environment.  # pylint: disable=unused-import

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "integration"))

# pylint: disable=wrong-import-position
import expertmesh
import neighbours
from checkpoint import make_checkpoint
from mesh import Mesh, hidden_states, shards

CALLERS = 2


def call(mesh, checkpoint, seconds, is_over):
    """Latencies in ms, and errors, of one caller, for so long at least and until `is_over`."""
    x = hidden_states(4, checkpoint.d_model)
    taken, errors = [], []
    end = time.monotonic() + seconds
    with expertmesh.Client(mesh.router.address) as client:
        while time.monotonic() < end or not is_over():
            begin = time.monotonic()
            try:
                client.forward(checkpoint.moe_layers[0], x)
            except expertmesh.ExpertmeshError as error:
                errors.append(error)
            taken.append(1000 * (time.monotonic() - begin))
    return taken, errors


def measure(mesh, checkpoint, seconds, misbehave):
    with concurrent.futures.ThreadPoolExecutor(CALLERS) as pool:
        with misbehave(mesh.router, checkpoint) as is_over:
            runs = [
                pool.submit(call, mesh, checkpoint, seconds, is_over) for _ in range(CALLERS)
            ]
            results = [run.result() for run in runs]
    taken = sorted(ms for result in results for ms in result[0])
    return taken, [error for result in results for error in result[1]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        checkpoint = make_checkpoint(folder / "qwen3_moe", "qwen3_moe")
        with Mesh(folder) as mesh:
            mesh.start(checkpoint.path, shards(4, "--replicas", "2"))
            measure(mesh, checkpoint, 1, neighbours.quiet)  # Warm.
            print("| neighbour | answers | failed | p50 ms | p99 ms | longest ms | nodes lost |")
            print("|---|---|---|---|---|---|---|")
            for misbehave in neighbours.ALL:
                taken, errors = measure(mesh, checkpoint, seconds, misbehave)
                at = [taken[int(share * (len(taken) - 1))] for share in (0.5, 0.99, 1)]
                print(
                    f"| {misbehave.__name__} | {len(taken)} | {len(errors)} | {at[0]:.2f} | {at[1]:.2f} "
                    f"| {at[2]:.0f} | {neighbours.disconnects(mesh)} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
