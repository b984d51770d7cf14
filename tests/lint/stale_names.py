"""Comments and READMEs name only metrics, files and folders that exist.

Usage: stale_names.py [TREE]
"""

import re

import comments
import tree

METRIC_LITERAL = re.compile(r'"((?:expertmesh|grpc_server)_[a-z0-9_]+)"')
# Series that Prometheus makes of a histogram.
SERIES = ("_bucket", "_sum", "_count")
COUNTER = re.compile(r"(?<![a-z0-9])[a-z][a-z0-9_]*_total\b")

# Where a path may begin. What a build makes is not here.
FOLDERS = ("client", "common", "deploy", "expert_service", "findings", "proto", "router_service", "tests")
PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w(?![\w/]*[*{{<$])")
# Of a file without its folder: one of that name must be somewhere.
FILE = re.compile(r"(?<![\w./<-])[a-z][\w-]+\.(?:cc|h|py|sh|proto)\b(?![/*{(])")
# Stands for any name: tests/unit/X/y_test.cc, test_x.py, family_NAME.cc.
PLACEHOLDER = re.compile(r"[/_](?:[A-Z]+\b|x\.)")


def problems(root):
    metrics = _metrics(root)
    known = re.compile("|".join(sorted({"_".join(m.split("_")[:2]) for m in metrics})) or "$^")
    names = {path.split("/")[-1] for path in tree.files(root, comments.SUFFIXES)}
    found = []
    for path in tree.files(root, (*comments.SUFFIXES, ".md")):
        text = tree.read(root, path)
        pieces = [comments.Piece(1, text)] if path.endswith(".md") else comments.comments(path, text)
        for piece in pieces:
            faults = [
                *_stale_metrics(piece, metrics, known),
                *_stale_paths(piece, root),
                *_stale_files(piece, names),
            ]
            found += [tree.Problem(path, line, fault) for line, fault in faults]
    return found


def _metrics(root):
    names = set()
    for path in tree.files(root, (".cc", ".h"), ("common", "expert_service", "router_service")):
        names.update(METRIC_LITERAL.findall(tree.read(root, path)))
    return names


def _line(piece, match):
    return piece.line + piece.text.count("\n", 0, match.start())


def _stale_metrics(piece, metrics, known):
    words = [*COUNTER.finditer(piece.text), *re.finditer(rf"\b(?:{known.pattern})_[a-z_]+\b", piece.text)]
    for match in {match.group(0): match for match in words}.values():
        name = match.group(0)
        for series in SERIES:
            name = name.removesuffix(series)
        # Also without its beginning: ..._wire_overflow_rows_total.
        if not any(metric == name or metric.endswith("_" + name) for metric in metrics):
            yield _line(piece, match), f"no metric is called {name}: name the one that is meant"


def _stale_paths(piece, root):
    for match in PATH.finditer(piece.text):
        path = match.group(0)
        if not PLACEHOLDER.search(path) and not (root / path).exists():
            yield _line(piece, match), f"there is no {path}: name the file or folder that is meant"


def _stale_files(piece, names):
    for match in FILE.finditer(piece.text):
        name = match.group(0)
        if not PLACEHOLDER.search(name) and name not in names:
            yield _line(piece, match), f"no file is called {name}: name the one that is meant"


if __name__ == "__main__":
    tree.report(problems(tree.root_argument()), "metrics and files named in comments and READMEs")
