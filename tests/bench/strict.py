"""What --strict costs: two meshes over one checkpoint, one with it, measured in turns.

    build/venv/bin/python tests/bench/strict.py [--shape qwen3] [--nodes 2] [--runs 7]

Takes the programs from the environment, or else from build/release.
"""

import argparse
import contextlib
import os
import pathlib
import statistics
import tempfile

BUILD = pathlib.Path(__file__).parents[2] / "build" / "release"
for name, program in (
    ("ROUTER", "router_service/expertmesh-router"),
    ("EXPERT", "expert_service/expertmesh-expert"),
    ("CLI", "client/cpp/expertmesh"),
):
    os.environ.setdefault(f"EXPERTMESH_{name}", str(BUILD / program))

import bench  # pylint: disable=wrong-import-position
import plan  # pylint: disable=wrong-import-position
import systems  # pylint: disable=wrong-import-position

TOKENS = (1, 64, 512)


def measure(model, nodes, runs, seconds):
    """(tokens, strict) -> what each run gave."""
    found = {(tokens, strict): [] for tokens in TOKENS for strict in (False, True)}
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        meshes = {}
        for strict in (False, True):
            place = folder / f"strict{strict:d}"
            place.mkdir()
            flags = ["--strict"] if strict else []
            meshes[strict] = systems.MeshSystem(plan.MeshKind(nodes), model, place, *flags)
            stack.callback(meshes[strict].close)
        for turn in range(runs):
            for tokens in TOKENS:
                # Each goes first in every other round.
                for strict in sorted(meshes, reverse=turn % 2 == 1):
                    one = meshes[strict].measure(plan.Cell(tokens), seconds, 0, None)
                    found[tokens, strict].append(one)
    return found


def middle(runs, value):
    return statistics.median(run[value] for run in runs)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", default="qwen3", choices=plan.shapes())
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    args = parser.parse_args()
    shape = plan.shapes()[args.shape]
    found = measure(bench.checkpoint(shape), args.nodes, args.runs, args.seconds)
    print(f"{shape.title}, {args.nodes} nodes, medians of {args.runs} runs in turns")
    print("tokens  tokens/s  strict   ratio  bytes/token  strict   ratio")
    for tokens in TOKENS:
        line = f"{tokens:6d}"
        for value, width in (("tokens_per_second", 10), ("bytes_per_token", 13)):
            plain, strict = (middle(found[tokens, each], value) for each in (False, True))
            line += f"{plain:{width}.0f}{strict:8.0f}{strict / plain:8.2f}"
        print(line)


if __name__ == "__main__":
    main()
