"""Measures meshes and baselines in turns, and writes what came out. Started by run.sh."""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import machine
import plan
import report
import results
import systems
import targets

ROOT = pathlib.Path(__file__).parents[2]
OUT = ROOT / "build" / "bench"


def checkpoint(shape):
    """Made once, and whole or not at all."""
    flags = [str(flag) for flag in shape.flags()]
    folder = OUT / "checkpoints" / "-".join(flag.strip("-") for flag in flags[1:])
    if not (folder / "config.json").exists():
        print(f"Making a checkpoint of {shape.title}'s shape")
        folder.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [systems.program("cli"), "checkpoint", "make", "--output", str(folder), *flags],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    return folder


class GroupRun:
    """One group's systems, alive, and what they have been seen to do so far."""

    def __init__(self, group, model, folder, stack):
        self.group = group
        self.model = model
        self.systems = {}
        # (cell, system) -> what each run gave.
        self.runs = collections.defaultdict(list)
        self.ceilings = []
        self.rates = {}
        for kind in group.meshes:
            place = folder / kind.name
            place.mkdir()
            self._add(stack, systems.MeshSystem(kind, model, place))
        for name in group.baselines:
            if name == "ggml_rpc":
                self._add(stack, systems.GgmlRpc(group.shape, folder))
            else:
                self._add(stack, systems.Baseline(name, model, folder))

    def _add(self, stack, system):
        stack.callback(system.close)
        self.systems[system.name] = system

    def _rate(self, cell, system):
        """Requests per second, the same in every run; 0: closed loop."""
        if not cell.open_share:
            return 0
        if (cell, system) not in self.rates:
            closed = self.runs[(plan.Cell(cell.tokens), system)][0]
            self.rates[(cell, system)] = cell.open_share * closed["tokens_per_second"] / cell.tokens
        return self.rates[(cell, system)]

    def run(self, seconds):
        if "in_process" in self.systems:
            self.ceilings.append(systems.ceilings(self.model, seconds / 2))
        for cell, names in self.group.work:
            sizes = (0, 0, 0, 0)
            for name in names:
                # A batch of 512 takes long; so that there are a few dozen of them.
                length = seconds * (1.5 if cell.tokens >= 512 else 1)
                measured = self.systems[name].measure(cell, length, self._rate(cell, name), sizes)
                sizes = measured.get("hop_bytes_per_token", sizes)
                self.runs[(cell, name)].append(measured)
                print(".", end="", flush=True)

    def summary(self):
        measurements = []
        for (cell, name), runs in self.runs.items():
            rate = self.rates.get((cell, name), 0)
            system = self.systems[name]
            measurements.append(results.summarise(self.group.shape, cell, system, rate, runs))
        memory = [
            {"shape": self.group.shape.name, "system": name, "process": process, "peak_bytes": peak}
            for name, system in self.systems.items()
            for process, peak in system.memory().items()
        ]
        return measurements, memory


def run_group(group, runs, seconds):
    model = checkpoint(group.shape)
    names = [kind.name for kind in group.meshes] + group.baselines
    print(f"{group.shape.title}: {' '.join(names)} ", end="", flush=True)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="expertmesh-bench-"))
        going = GroupRun(group, model, pathlib.Path(folder), stack)
        for _ in range(runs):
            going.run(seconds)
        print()
        return (*going.summary(), going.ceilings)


def arguments():
    parser = argparse.ArgumentParser(prog="run.sh")
    parser.add_argument("--json", type=pathlib.Path, default=OUT / "result.json")
    parser.add_argument("--html", type=pathlib.Path, default=OUT / "report.html")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--shapes", default="qwen3,olmoe,mixtral,deepseek_v3,tiny_experts")
    parser.add_argument("--ggml", action="store_true")
    return parser.parse_args()


def main():
    args = arguments()
    runs, seconds = (1, 0.2) if args.quick else (max(1, args.runs), 1.0)
    begin = time.time()
    described = machine.describe()
    measurements, memory, ceilings = [], [], []
    for group in plan.groups(args.shapes.split(","), plan.PEERS if args.ggml else ()):
        of_group = run_group(group, runs, seconds)
        measurements += of_group[0]
        memory += of_group[1]
        ceilings += [{"shape": group.shape.name, **each} for each in of_group[2]]
    described["load_average_after"] = os.getloadavg()[0]
    result = {
        "schema": 1,
        "commit": machine.commit(ROOT),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begin)),
        "seconds": time.time() - begin,
        "quick": args.quick,
        "runs": runs,
        "machine": described,
        "ceilings": ceilings,
        "measurements": measurements,
        "memory": memory,
    }
    result["targets"] = targets.targets(result)
    for path, text in ((args.json, json.dumps(result, indent=1)), (args.html, report.html(result))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    print(targets.headline(result))
    print(f"Figures: {args.json}\nReport: {args.html}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
