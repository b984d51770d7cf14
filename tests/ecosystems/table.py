"""Ecosystems against what each must be able to do with a running mesh: see tests/README.md, Ecosystems.

    tests/ecosystems/table.py [--ecosystem NAME]... [--neighbours N] [--json FILE]

The exit status is 0 when nothing is `no` or missing, and no neighbour was lost.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
BUILT = {
    "ROUTER": "router_service/expertmesh-router",
    "EXPERT": "expert_service/expertmesh-expert",
    "CLI": "client/cpp/expertmesh",
}
for variable, path in BUILT.items():
    os.environ.setdefault(f"EXPERTMESH_{variable}", str(ROOT / "build" / "release" / path))
sys.path.insert(0, str(ROOT / "tests" / "integration"))
FORWARD = ROOT / "tests" / "golden" / "forward"
sys.path.append(str(FORWARD))

# pylint: disable=wrong-import-position
import make_forward_golden
import numpy as np
from mesh import Mesh, shards

import columns
import ecosystems

# 60 MB of this small model are more tokens than routers and nodes take by default.
NODE_FLAGS = ("--max-queue-rows", "4000000")
ROUTER_FLAGS = ("--max-queue-tokens", "1000000", "--max-tokens-in-flight", "1000000")
# An ecosystem that installs and compiles everything first.
SECONDS = 1800


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = [*ecosystems.LANGUAGES, *ecosystems.OWN]
    parser.add_argument("--ecosystem", action="append", choices=known)
    parser.add_argument("--neighbours", type=int, default=60, metavar="N")
    parser.add_argument("--json", type=pathlib.Path)
    return parser.parse_args()


def golden_folder(mesh, folder):
    """The golden vectors, and what grpcio gets for them from this mesh."""
    golden = folder / "golden"
    golden.mkdir()
    for file in FORWARD.glob("*.f32"):
        (golden / file.name).write_bytes(file.read_bytes())
    model = mesh.client.describe()
    rows = np.fromfile(golden / "hidden_states.f32", "<f4").reshape(-1, model.d_model)
    output = mesh.client.forward(model.layers[0].layer, rows).output
    output.astype("<f4").tofile(golden / "answer.f32")
    return golden


def check(name, address, golden):
    """{column: (word, why)}. In a process of its own: whatever goes wrong is the ecosystem's."""
    here = pathlib.Path(__file__).parent
    argv = [sys.executable, here / "ecosystems.py", name, address, golden]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {column: ("no", f"not within {SECONDS} s") for column in columns.COLUMNS}
    found = columns.parse(done.stdout)
    missing = re.search(r"^missing: (.*)", done.stdout, re.MULTILINE)
    for column in columns.COLUMNS:
        if column not in found:
            why = missing[1] if missing else (done.stderr.strip() or "it said nothing")[-250:]
            found[column] = ("missing" if missing else "no", why)
    return found


def table(results):
    lines = ["| | " + " | ".join(columns.COLUMNS) + " |", "|---" * (len(columns.COLUMNS) + 1) + "|"]
    lines += [
        f"| {name} | " + " | ".join(found[column][0] for column in columns.COLUMNS) + " |"
        for name, found in results.items()
    ]
    return "\n".join(lines)


def reasons(results):
    """Why something is not `yes`, each text once for each ecosystem."""
    for name, found in results.items():
        said = {}
        for column in columns.COLUMNS:
            word, why = found[column]
            if word != "yes":
                said.setdefault((word, why), []).append(column)
        for (word, why), which in said.items():
            yield f"{name}: {', '.join(which)}: {word}: {' '.join(why.split())}"


def main():
    options = arguments()
    names = options.ecosystem or [*ecosystems.LANGUAGES, *ecosystems.OWN]
    results = {}
    with tempfile.TemporaryDirectory(prefix="expertmesh-ecosystems-") as folder:
        folder = pathlib.Path(folder)
        make_forward_golden.make_checkpoint(folder / "checkpoint")
        with Mesh(folder) as mesh:
            mesh.start(folder / "checkpoint", shards(2, *NODE_FLAGS), *ROUTER_FLAGS)
            golden = golden_folder(mesh, folder)
            for name in names:
                results[name] = check(name, mesh.router.address, golden)
                print(name, {c: results[name][c][0] for c in columns.COLUMNS}, flush=True)
            lost = ""
            if options.neighbours:
                lost = ecosystems.neighbours(mesh.router.address, options.neighbours)
    print("\n" + table(results) + "\n", *reasons(results), lost, sep="\n")
    if options.json:
        options.json.write_text(json.dumps({"results": results, "neighbours": lost}, indent=1))
    wrong = any(found[column][0] in ("no", "missing") for found in results.values() for column in found)
    return 1 if wrong or re.search(r"^[1-9]\d* of", lost, re.MULTILINE) else 0


if __name__ == "__main__":
    sys.exit(main())
