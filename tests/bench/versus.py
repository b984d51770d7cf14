"""Two meshes over one checkpoint, measured in turns, so that what the machine does besides hits both alike.

    build/venv/bin/python tests/bench/versus.py strict             a mesh, and one with --strict
    build/venv/bin/python tests/bench/versus.py shared             shared experts at the router, and on all nodes
    build/venv/bin/python tests/bench/versus.py trace --ratio 1    --tracing=off, and that share of requests sampled
    build/venv/bin/python tests/bench/versus.py collector --fault hang   every request sampled, and exported nowhere or
                                                                   to such a collector (trace_collector.py)
    build/venv/bin/python tests/bench/versus.py build OTHER        OTHER's programs, and this tree's

OTHER is a build folder, like build/release of another clone. [--shape qwen3] [--nodes 2] [--runs 7] [--tokens 1,8]
[--seconds 1] [--callers 1] [--fresh]. `trace` exports nothing unless OTEL_EXPORTER_OTLP_ENDPOINT is set. Ratios are of the second
mesh to the first: the median of the rounds' own. Two meshes of the same kind differ by some per cent for as long as they run:
with --fresh each round has its own.

Takes this tree's programs from the environment, or else from build/release.
"""

import argparse
import contextlib
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

BUILD = pathlib.Path(__file__).parents[2] / "build" / "release"
PROGRAMS = {
    "EXPERTMESH_ROUTER": "router_service/expertmesh-router",
    "EXPERTMESH_EXPERT": "expert_service/expertmesh-expert",
    "EXPERTMESH_CLI": "client/cpp/expertmesh",
}
for variable, path in PROGRAMS.items():
    os.environ.setdefault(variable, str(BUILD / path))

import bench  # pylint: disable=wrong-import-position
import plan  # pylint: disable=wrong-import-position
import results  # pylint: disable=wrong-import-position
import systems  # pylint: disable=wrong-import-position
import trace_collector  # pylint: disable=wrong-import-position

# Name, how it is read off a run, and its format.
FIGURES = (
    ("tokens/s", lambda run: run["tokens_per_second"], ".0f"),
    ("p50 ms", lambda run: run["latency_ms"]["p50"], ".3f"),
    ("p99 ms", lambda run: run["latency_ms"]["p99"], ".3f"),
    ("CPU s/1k", lambda run: run["cpu_seconds_per_1000_tokens"], ".3f"),
    ("bytes/token", lambda run: run["bytes_per_token"], ".0f"),
)


class Variant:
    """A mesh, and the programs it is made of."""

    def __init__(self, name, folder, model, nodes, programs=None, router_flags=(), node_flags=()):
        self.name = name
        self.programs = programs or {}
        folder.mkdir()
        with self._environment():
            self.mesh = systems.MeshSystem(
                plan.MeshKind(nodes), model, folder, *router_flags, node_flags=node_flags
            )

    @contextlib.contextmanager
    def _environment(self):
        before = dict(os.environ)
        os.environ.update(self.programs)
        try:
            yield
        finally:
            os.environ.update(before)

    def measure(self, cell, seconds):
        with self._environment():
            return results.one_run(cell, self.mesh.measure(cell, seconds, 0, None))


@contextlib.contextmanager
def collector(fault):
    """Where it listens while it is needed."""
    command = [sys.executable, pathlib.Path(trace_collector.__file__), fault]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


def describe_export(variant):
    """What became of the spans of a mesh that exports."""
    router = variant.mesh.mesh.router
    counted = {
        name: router.metric(f"expertmesh_router_trace_{name}_total")
        for name in ("spans", "exported_spans", "dropped_spans", "exports")
    }
    resident = router.metric("expertmesh_process_resident_bytes") / 2**20
    counts = ", ".join(f"{name.replace('_', ' ')} {count:.0f}" for name, count in counted.items())
    return f"{variant.name}: {counts}; {resident:.0f} MiB resident"


def variants(args, model, folder, stack):
    """What they need besides is entered into `stack`."""
    if args.what == "strict":
        yield Variant("plain", folder / "plain", model, args.nodes)
        yield Variant("strict", folder / "strict", model, args.nodes, router_flags=["--strict"])
        return
    if args.what == "shared":
        yield Variant("router", folder / "router", model, args.nodes)
        flags = {"router_flags": ["--shared-experts=nodes"], "node_flags": ["--shared-experts"]}
        yield Variant("nodes", folder / "nodes", model, args.nodes, **flags)
        return
    if args.what == "trace":
        yield Variant("off", folder / "off", model, args.nodes, router_flags=["--tracing=off"])
        flags = [f"--trace-ratio={args.ratio}", "--trace-slow=inf"]
        yield Variant("traced", folder / "traced", model, args.nodes, router_flags=flags)
        return
    if args.what == "collector":
        flags = {"router_flags": ["--trace-ratio=1", "--trace-slow=inf"]}
        yield Variant("nowhere", folder / "nowhere", model, args.nodes, **flags)
        exporting = {"OTEL_EXPORTER_OTLP_ENDPOINT": stack.enter_context(collector(args.fault))}
        yield Variant(args.fault, folder / args.fault, model, args.nodes, exporting, **flags)
        return
    other = {variable: str(args.other / path) for variable, path in PROGRAMS.items()}
    yield Variant("other", folder / "other", model, args.nodes, other)
    yield Variant("this", folder / "this", model, args.nodes)


def measure(args, model):
    """cell -> [(first's run, second's run), ...], the two's names, and what is to be said beside the table."""
    cells = [plan.Cell(tokens, callers=args.callers) for tokens in args.tokens]
    found = {cell: [] for cell in cells}
    meshes, turns = (args.runs, 1) if args.fresh else (1, args.runs)
    for made in range(meshes):
        with contextlib.ExitStack() as stack:
            folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            pair = []
            for variant in variants(args, model, folder, stack):
                stack.callback(variant.mesh.close)
                pair.append(variant)
            for turn in range(turns):
                for cell in cells:
                    # Each goes first in every other round.
                    order = [0, 1] if (made + turn) % 2 == 0 else [1, 0]
                    runs = {index: pair[index].measure(cell, args.seconds) for index in order}
                    found[cell].append((runs[0], runs[1]))
            said = describe_export(pair[1]) if args.what == "collector" else ""
            names = [variant.name for variant in pair]
    return found, names, said


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("strict", "shared", "trace", "collector", "build"))
    parser.add_argument("other", nargs="?", type=pathlib.Path)
    parser.add_argument("--ratio", type=float, default=0.01)
    parser.add_argument("--fault", choices=trace_collector.FAULTS, default="hang")
    parser.add_argument("--callers", type=int, default=1)
    parser.add_argument("--fresh", action="store_true", help="other meshes in every round")
    parser.add_argument("--shape", default="qwen3", choices=plan.shapes())
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument(
        "--tokens", type=lambda text: [int(each) for each in text.split(",")], default=[1, 8, 64, 512]
    )
    args = parser.parse_args()
    if (args.what == "build") != (args.other is not None):
        parser.error("`build` takes the other build's folder, the others nothing")
    shape = plan.shapes()[args.shape]
    found, names, said = measure(args, bench.checkpoint(shape))
    print(said, end="\n" if said else "")
    print(f"{shape.title}, {args.nodes} nodes, medians of {args.runs} runs in turns")
    print("tokens" + "".join(f"{name:>14}{names[0]:>10}{names[1]:>10}{'ratio':>7}" for name, _, _ in FIGURES))
    for cell, runs in found.items():
        line = f"{cell.tokens:6d}"
        for _, value, form in FIGURES:
            first, second = ([value(pair[index]) for pair in runs] for index in (0, 1))
            ratio = statistics.median(b / a for a, b in zip(first, second))
            line += f"{'':14}{statistics.median(first):10{form}}{statistics.median(second):10{form}}{ratio:7.2f}"
        print(line)


if __name__ == "__main__":
    main()
