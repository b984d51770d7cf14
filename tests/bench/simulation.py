"""What `expertmesh replay` says of a mesh of four nodes, and what that mesh did.

    build/venv/bin/python tests/bench/simulation.py [--shape olmoe] [--nodes 4] [--seconds 1] [--runs 3]

Records a mesh under uniform and k-hot routing, batches of 1 to 256 tokens, and takes the service times from that
recording (`--fit`). Then it asks for the same nodes under Zipf routing, which the times were not taken from, one size of
batches after another: the median time of a layer, which the router wrote into the recording, and the fullest node over
the mean, which the nodes counted themselves.

All nodes have one thread and share this machine's cores; the simulation is told so (--parallel-nodes).

Takes this tree's programs from the environment, or else from build/release.
"""

import argparse
import contextlib
import json
import pathlib
import re
import statistics
import tempfile

import versus  # Sets the programs. pylint: disable=unused-import

# pylint: disable=wrong-import-order
import bench
import plan
import systems
from mesh import cli

SIZES = (1, 4, 16, 64, 128, 256)


class RecordedMesh:
    """A mesh, and the file that its routing is recorded in."""

    def __init__(self, model, nodes, folder):
        folder.mkdir()
        self.record = folder / "record"
        self.system = systems.MeshSystem(plan.MeshKind(nodes), model, folder, "--record-routing", self.record)

    def load(self, tokens, routing, seconds):
        self.system.measure(plan.Cell(tokens, routing), seconds, 0, None)

    def fullest(self):
        """Over the mean, by what the nodes counted."""
        counts = [node.metric("expertmesh_expert_layer_tokens_total") for node in self.system.mesh.nodes]
        return max(counts) / statistics.mean(counts)


def replay(record, args, *options):
    """(static policy's summary, what was printed)."""
    out = record.parent / "replay.json"
    command = ["replay", "--recording", record, "--nodes", args.nodes, "--deal", "shards"]
    command += ["--parallel-nodes", systems.cores(), "--interval", "1h", "--policies", "static"]
    done = cli(*command, "--json", out, *options)
    (policy,) = json.loads(out.read_text())["policies"]
    return policy["summary"], done.stdout


def measured_p50(printed):
    """What the router recorded, in microseconds."""
    return float(re.search(r"measured p50 (\d+) us", printed)[1])


def measure(args, meshes, calibration):
    """Loads them in turns, so that what the machine does besides hits all alike."""
    for _ in range(args.runs):
        for tokens, mesh in meshes.items():
            for routing in ("uniform", "k-hot"):
                calibration.load(tokens, routing, args.seconds)
            mesh.load(tokens, "zipf", args.seconds)


def report(args, meshes, calibration):
    _, printed = replay(calibration.record, args, "--fit")
    line, times, *_ = printed.splitlines()
    print(f"{line}\n{times}")
    print("tokens  p50 us: simulated  measured  ratio   fullest/mean: simulated  measured  ratio")
    for tokens, mesh in meshes.items():
        summary, printed = replay(mesh.record, args, *times.split())
        p50 = (summary["p50_us"], measured_p50(printed))
        fullest = (summary["fullest_over_mean"], mesh.fullest())
        print(
            f"{tokens:6d}{p50[0]:19.0f}{p50[1]:10.0f}{p50[0] / p50[1]:7.2f}"
            f"{fullest[0]:26.3f}{fullest[1]:10.3f}{fullest[0] / fullest[1]:7.2f}"
        )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", default="olmoe", choices=plan.shapes())
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    shape = plan.shapes()[args.shape]
    model = bench.checkpoint(shape)
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def start(name):
            mesh = RecordedMesh(model, args.nodes, folder / name)
            stack.callback(mesh.system.close)
            return mesh

        calibration = start("calibration")
        meshes = {tokens: start(str(tokens)) for tokens in SIZES}
        measure(args, meshes, calibration)
        print(f"{shape.title}, {args.nodes} nodes on {systems.cores()} cores")
        report(args, meshes, calibration)


if __name__ == "__main__":
    main()
