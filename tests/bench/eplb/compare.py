#!/usr/bin/env python3
"""The placement planner beside vLLM's policy and DeepSeek's published example, on the same loads.

Gets the rivals' wheels (requirements.txt) into build/eplb and unpacks a few Python files of them.
Each plan is made on one core; the three take turns. Run it with build/venv/bin/python, after
`deploy/venv.sh --with-transformers`: the rivals need its torch and numpy.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import zipfile

import loads
import rival

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[2]
OUT = ROOT / "build" / "eplb"
# Repetitions in one turn: about as long for each.
REPEATS = {"expertmesh": 200, "vllm": 10, "deepseek": 1}
# At least so many times as fast.
TARGETS = {"vllm": 15, "deepseek": 200}


def _download(python, out):
    # The files are the same for all Pythons and machines; the wheels are chosen so that they are.
    command = [python, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:", "--python-version", "311", "--platform"]
    command += ["manylinux_2_28_x86_64", "--dest", out, "--requirement", HERE / "requirements.txt"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(
            f"{done.stderr}compare.py: the package index could not be reached, or does not have "
            f"what {HERE / 'requirements.txt'} names"
        )


def get_rivals(python, out):
    """A folder per set of versions, and a stamp in it: a failed try leaves none."""
    complete = out / ".complete"
    versions = (HERE / "requirements.txt").read_text()
    if complete.exists() and complete.read_text() == versions:
        return
    out.mkdir(parents=True, exist_ok=True)
    _download(python, out)
    wanted = {*rival.FILES.values(), str(pathlib.Path(rival.FILES["vllm"]).parent / "abstract.py")}
    for wheel in out.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in wanted & set(archive.namelist()):
                archive.extract(name, out)
        wheel.unlink()
    missing = [name for name in wanted if not (out / name).exists()]
    if missing:
        raise SystemExit(f"compare.py: the wheels have no {missing[0]}")
    complete.write_text(versions)


def command(system, program, python, path):
    repeats = str(REPEATS[system])
    if system == "expertmesh":
        return [program, path, repeats]
    return [python, HERE / "rival.py", system, OUT, path, repeats]


def run(system, program, python, path):
    core = str(max(os.sched_getaffinity(0)))
    done = subprocess.run(
        ["taskset", "-c", core, *command(system, program, python, path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{done.stderr}compare.py: {system} failed")
    return json.loads(done.stdout)


def compare(problem, rounds, program, python):
    """[system] of (median CPU ms of a plan, its last plan)."""
    path = OUT / "loads.bin"
    loads.write(path, problem)
    cpu_ms = {system: [] for system in REPEATS}
    plans = {}
    for _ in range(rounds):
        for system in REPEATS:
            plans[system] = run(system, program, python, path)
            cpu_ms[system] += plans[system]["cpu_ms"]
    return {system: (statistics.median(cpu_ms[system]), plans[system]) for system in REPEATS}


def table(problem, results):
    """Lines, and whether all targets are met."""
    ours = results["expertmesh"][0]
    lines = [
        "planner      CPU ms   times ours   fullest/mean   worst layer   copies   beside itself"
    ]
    met = True
    for system, (cpu_ms, plan) in results.items():
        found = loads.figures(problem, plan["copies"])
        lines.append(
            f"{system:10} {cpu_ms:8.2f} {cpu_ms / ours:12.1f} {found.mean:14.4f} "
            f"{found.worst:13.4f} {found.copies:8} {found.beside:15}"
        )
        met = met and cpu_ms / ours >= TARGETS.get(system, 0)
    return lines, met


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    program = args.program or ROOT / "build" / "release" / "tests" / "bench" / "eplb-plan"
    if importlib.util.find_spec("torch") is None:
        parser.error("the rivals need torch: deploy/venv.sh --with-transformers adds it")
    get_rivals(sys.executable, OUT)

    print("58 layers, 256 experts, Zipf(1.0), 32 nodes x 9 slots")
    problem = loads.Problem(loads.zipf(58, 256, 1.0, args.seed), 32, 9)
    lines, met = table(problem, compare(problem, args.rounds, program, sys.executable))
    print("\n".join(lines))

    print("\nloads 600 560 120 120 20 10 10 10, 8 nodes x 2 slots (mean 181.25)")
    problem = loads.Problem([[600, 560, 120, 120, 20, 10, 10, 10]], 8, 2)
    for system, (_, plan) in compare(problem, 1, program, sys.executable).items():
        print(f"{system:10} fullest {181.25 * loads.figures(problem, plan['copies']).worst:.2f}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
