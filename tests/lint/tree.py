"""The files of the tree, and how a lint reports what it finds."""

import dataclasses
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Made, not written: builds, caches, packages, generated stubs.
GENERATED_FOLDERS = ("build", "__pycache__", "node_modules")
GENERATED_SUFFIXES = ("_pb2.py", "_pb2_grpc.py")


@dataclasses.dataclass(frozen=True, order=True)
class Problem:
    path: str
    line: int
    text: str

    def __str__(self):
        return f"{self.path}:{self.line}: {self.text}"


def files(root, suffixes, folders=("",)):
    """Paths relative to `root`, with one of `suffixes`, below one of `folders`; sorted."""
    found = set()
    for folder in folders:
        for directory, names, entries in os.walk(root / folder):
            names[:] = [n for n in names if n not in GENERATED_FOLDERS and n[0] != "."]
            for entry in entries:
                if entry.endswith(suffixes) and not entry.endswith(GENERATED_SUFFIXES):
                    path = pathlib.Path(directory, entry)
                    # Build folders inside packages are links in some checkouts.
                    if path.is_file():
                        found.add(path.relative_to(root).as_posix())
    return sorted(found)


def read(root, path):
    return (root / path).read_text(encoding="utf-8", errors="replace")


def report(problems, subject):
    """Prints the problems and ends the program: 1 when there are any."""
    problems = sorted(problems)
    for problem in problems:
        print(problem)
    if problems:
        sys.exit(f"{len(problems)} problems; {subject}")
    print(f"No problem: {subject}")


def root_argument():
    """The tree to look at: the first argument that is not a flag, else the tree that the lint is part of."""
    paths = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    return pathlib.Path(paths[0]).resolve() if paths else ROOT
