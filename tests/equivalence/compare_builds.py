"""Whether two builds answer the same requests with the same bytes.

    build/venv/bin/python tests/equivalence/compare_builds.py --old OTHER [--new .] [--self-check]

OTHER is a checkout with build/release, or a build folder. Requests are recorded once for each checkpoint (every family
in float32 and bf16; quantised ones, other types on the wire and other routings on fewer layouts) and sent by one client
to meshes of either build's programs: each layout of nodes, with and without --strict, unary and streamed, all nodes up,
after one of them is killed with -9, and when it is back; with --strict also while it has work. Equal means the code and
the message of the call and all of the answer, output and routing bit for bit, but for its timing; the epoch counts from
the topology's, and is left out while a node dies.

Prints a table and the first difference of each cell; ends with 1 when there is one. --self-check flips a bit in an
answer of each cell afterwards, which must be found in its place. --models and --layouts take some (regular expressions
of names), --list shows them, --folder keeps checkpoints, requests and logs.
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import multiprocessing
import pathlib
import re
import shutil
import sys
import tempfile
import time
import zlib
from typing import List, Optional

import numpy as np

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "integration"))

# pylint: disable=wrong-import-position
import recording
import replay
from answers import difference, flip_bit
from checkpoint import make_checkpoint
from expertmesh.v1 import router_pb2
from matrix import LAYOUTS, MODELS, SIZES

SEED = 14


@dataclasses.dataclass
class Count:
    """Answers of one mode."""

    requests: int = 0
    equal: int = 0
    # Those of the old build with status OK.
    ok: int = 0

    def add(self, other):
        self.requests += other.requests
        self.equal += other.equal
        self.ok += other.ok


@dataclasses.dataclass
class Cell:
    """A model on a layout, with --strict or without."""

    label: str
    layout: str
    kind: str
    counts: dict = dataclasses.field(default_factory=dict)
    differences: List[str] = dataclasses.field(default_factory=list)
    # Whether the node had work when it was killed, for each build; None without such a kill.
    lost_work: Optional[tuple] = None
    flips: int = 0
    flips_found: int = 0


def describe_request(request):
    request = router_pb2.ForwardRequest.FromString(request)
    tokens = request.hidden_states.shape[0]
    return f"request {request.request_id} (layer {request.layer}, {tokens} tokens)"


def compare_mode(cell, where, mode, pair, requests):
    """pair: what the old build and the new one answered, in the order of `requests`, again and again."""
    count = cell.counts.setdefault(mode, Count())
    first = None
    for place, (old, new) in enumerate(zip(*pair, strict=True)):
        count.requests += 1
        count.ok += old.ok
        found = difference(new, old)
        count.equal += found is None
        if found and not first:
            first = f"{where}, {mode}, {describe_request(requests[place % len(requests)])}: {found}"
    if first:
        cell.differences.append(first)


def check_flip(cell, where, answers, rng):
    """Whether a flipped bit of an answer is found where it is."""
    usable = [answer for answer in answers if answer.ok and answer.response.output.data]
    if not usable:
        return
    answer = usable[int(rng.integers(len(usable)))]
    flipped, row, column = flip_bit(answer, rng)
    cell.flips += 1
    found = difference(flipped, answer)
    if found and found.startswith(f"output: row {row}, column {column} is the first to differ"):
        cell.flips_found += 1
    else:
        cell.differences.append(f"{where}: a flipped bit in row {row}, column {column}: found {found}")


def compare(model, layout, old, new, lost_work, requests, self_check):
    """Cells of one model on one layout. old, new: {(kind, mode): answers}."""
    cells = []
    for kind in replay.KINDS:
        cell = Cell(model.label, layout.name, kind)
        where = f"{model.name}, {layout.name}, {kind}"
        for mode in replay.MODES:
            if (kind, mode) in old:
                compare_mode(cell, where, mode, (old[kind, mode], new[kind, mode]), requests)
        if kind == replay.STRICT:
            cell.lost_work = lost_work
        if cell.counts[replay.UNARY].ok == 0:
            cell.differences.append(f"{where}: no answer is OK, so that nothing is shown")
        if self_check:
            rng = np.random.default_rng(zlib.crc32(where.encode()))
            check_flip(cell, where, new[kind, replay.UNARY], rng)
        cells.append(cell)
    return cells


def failed(model, layout, error):
    cell = Cell(model.label, layout.name, "both")
    cell.differences.append(f"{model.name}, {layout.name}: {error}")
    return cell


def run_model(model, layouts, builds, folder, self_check):
    """Cells of one model; in a process of its own."""
    checkpoint = make_checkpoint(
        folder / "model", model.family, dtype=model.dtype, quantised=model.quantised, **SIZES
    )
    file = folder / "requests"
    recording.write(file, recording.record(checkpoint.moe_layers, checkpoint.d_model, SEED))
    requests = recording.read(file)
    cells = []
    for layout in layouts:
        try:
            found = [
                replay.replay(
                    build, model, layout, checkpoint.path, requests, folder / layout.name / name
                )
                for name, build in zip(("old", "new"), builds)
            ]
        except Exception as error:  # pylint: disable=broad-except
            # The other cells are worth comparing all the same.
            cells.append(failed(model, layout, f"{type(error).__name__}: {error}"))
            continue
        (old, old_lost), (new, new_lost) = found
        lost_work = None if old_lost is None else (old_lost, new_lost)
        cells += compare(model, layout, old, new, lost_work, requests, self_check)
    return cells


def run(models, layouts, builds, folder, jobs, self_check, keep):
    """Cells of all of these."""
    cells = []
    # Not forked: gRPC does not like it.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, context) as pool:
        running = {}
        for number, model in enumerate(models):
            used = [layouts[name] for name in model.layouts if name in layouts]
            place = folder / f"{number:03d}"
            place.mkdir()
            running[pool.submit(run_model, model, used, builds, place, self_check)] = model, place
        for done in concurrent.futures.as_completed(running):
            model, place = running[done]
            cells += done.result()
            if not keep:
                shutil.rmtree(place)
            if sys.stderr.isatty():
                print(f"{model.name}: done", file=sys.stderr)
    return cells


def table(cells):
    """Lines: answers equal / compared, by mode; cells of one label, layout and kind are added up."""
    rows = collections.defaultdict(lambda: collections.defaultdict(Count))
    for cell in cells:
        row = rows[cell.label, cell.layout, cell.kind]
        for mode, count in cell.counts.items():
            row[mode].add(count)
    width = max(len(label) for label, _, _ in rows)
    columns = (*replay.MODES, "requests", "equal", "different")
    yield f"{'model':{width}}  {'layout':12}  {'mode':6}" + "".join(f"{name:>15}" for name in columns)
    labels = list(dict.fromkeys(model.label for model in MODELS))
    for label, layout, kind in sorted(
        rows, key=lambda row: (labels.index(row[0]), list(LAYOUTS).index(row[1]), row[2])
    ):
        counts, total = rows[label, layout, kind], Count()
        line = f"{label:{width}}  {layout:12}  {kind:6}"
        for mode in replay.MODES:
            count = counts[mode]
            total.add(count)
            line += f"{f'{count.equal}/{count.requests}' if count.requests else '-':>15}"
        yield line + f"{total.requests:15}{total.equal:15}{total.requests - total.equal:15}"


def summary(cells, seconds):
    """Lines, and whether all is well."""
    total = Count()
    for cell in cells:
        for count in cell.counts.values():
            total.add(count)
    differences = [text for cell in cells for text in cell.differences]
    kills = [cell.lost_work for cell in cells if cell.lost_work is not None]
    lines = [f"different: {text}" for text in differences]
    lines.append(
        f"{len(cells)} cells in {seconds:.0f} s: {total.requests} answers of each build, {total.ok} of them OK;"
        f" {total.equal} equal, {total.requests - total.equal} different"
    )
    if kills:
        old, new = (sum(column) for column in zip(*kills))
        lines.append(
            f"killed while requests were under way: {len(kills)} times each; the node had work {old} times in the"
            f" old build and {new} times in the new one"
        )
    flips = sum(cell.flips for cell in cells)
    if flips:
        found = sum(cell.flips_found for cell in cells)
        lines.append(f"flipped bits: {flips}, found in their place: {found}")
    return lines, bool(cells) and not differences


def parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--old", type=pathlib.Path)
    parser.add_argument("--new", type=pathlib.Path, default=ROOT)
    parser.add_argument("--models", type=re.compile, default=re.compile(""))
    parser.add_argument("--layouts", type=re.compile, default=re.compile(""))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--self-check", action="store_true")
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args(arguments)
    args.models = [model for model in MODELS if args.models.search(model.name)]
    args.layouts = {name: each for name, each in LAYOUTS.items() if args.layouts.search(name)}
    args.models = [model for model in args.models if set(model.layouts) & set(args.layouts)]
    if not args.models:
        parser.error("--models and --layouts take none; --list shows all")
    if not args.list:
        if args.old is None:
            parser.error("--old is missing: a checkout with build/release, or a build folder")
        if args.folder and args.folder.exists() and any(args.folder.iterdir()):
            parser.error(f"--folder: {args.folder} is not empty; name another, or empty it")
        args.builds = [replay.Build(path.resolve()) for path in (args.old, args.new)]
        try:
            args.described = [build.describe() for build in args.builds]
        except FileNotFoundError as error:
            parser.error(str(error))
    return args


def main(arguments=None):
    args = parse(arguments)
    if args.list:
        print("\n".join(["layouts:", *args.layouts, "", "models:", *(m.name for m in args.models)]))
        return 0
    for name, path, described in zip(("old", "new"), (args.old, args.new), args.described):
        print(f"{name}: {path}: {described}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        keep = args.folder is not None
        cells = run(
            args.models, args.layouts, args.builds, folder, args.jobs, args.self_check, keep
        )
    print("\n".join(table(cells)))
    lines, well = summary(cells, time.monotonic() - began)
    print("\n".join(lines))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
