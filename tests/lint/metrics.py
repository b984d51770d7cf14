"""Every metric is an entry of a table, and every name that looks like one is in it.

Usage: metrics.py [TREE]

The tables are those that deploy/metric_table.py reads. Code takes metrics from them, docs and dashboards are
made from them.
"""

import re
import sys

import tree

sys.path.insert(0, str(tree.ROOT / "deploy"))

import metric_table as tables  # noqa: E402  pylint: disable=wrong-import-position

PREFIXES = {
    "every process": ("expertmesh_process_", "expertmesh_", "grpc_server_"),
    "router": ("expertmesh_router_",),
    "node": ("expertmesh_expert_",),
}
LABEL = re.compile(r"[a-z][a-z_]*")

# A name where one may stand: not in CMake, whose targets are called alike. What ends in "_" stands for all
# names that begin so.
NAME = re.compile(r"(?<![\w/.-])(?:expertmesh_(?:router|expert|process|build)|grpc_server)_[a-z0-9_]+(?![\w/.(-]*\()")
SUFFIXES = (".cc", ".h", ".proto", ".py", ".sh", ".md", ".json", ".yaml", ".yml", ".html", ".js", ".ts")
# Series that Prometheus makes of a histogram.
SERIES = ("_bucket", "_sum", "_count")
# Tests of this lint, and names of C++ targets in texts about the build.
LEFT_OUT = ("tests/lint/", "tests/contract/package-lock.json")
LITERAL = re.compile(r'"((?:expertmesh|grpc_server)_[a-z0-9_]+)"')
CODE = ("common", "expert_service", "router_service")


def problems(root):
    metrics = tables.read(root)
    found = [tree.Problem(metric.table, metric.line, fault) for metric in metrics for fault in _faults(metric)]
    seen = {}
    for metric in metrics:
        if metric.name in seen:
            found.append(tree.Problem(metric.table, metric.line, f"{metric.name} is in a table already"))
        seen[metric.name] = metric
    found += _unregistered(root, metrics)
    found += _beside_the_tables(root)
    found += _unknown(root, set(seen))
    docs = root / tables.DOCS
    if metrics and (not docs.exists() or docs.read_text(encoding="utf-8") != tables.as_markdown(metrics)):
        found.append(tree.Problem(tables.DOCS, 1, "is not what the tables say: run deploy/metric_table.py --write"))
    return found


def _faults(metric):
    prefix = next((p for p in PREFIXES[metric.process] if metric.name.startswith(p)), None)
    if prefix is None:
        yield f"{metric.name} begins with none of {', '.join(PREFIXES[metric.process])}"
        return
    short = metric.name.removeprefix("grpc_") if prefix == "grpc_server_" else metric.name.removeprefix(prefix)
    constant = "k" + "".join(word.capitalize() for word in short.split("_"))
    if metric.constant != constant:
        yield f"{metric.constant} is {metric.name}: call it {constant}"
    if (metric.type == "counter") != metric.name.endswith("_total"):
        yield f"{metric.name} is a {metric.type}: counters end in _total, and nothing else does"
    if metric.name.endswith(SERIES):
        yield f"{metric.name} ends as a series of a histogram does"
    if not metric.help or metric.help.endswith("."):
        yield f"{metric.name}: say in a phrase what it is, without a full stop"
    if not all(LABEL.fullmatch(label) for label in metric.labels):
        yield f"{metric.name}: labels are lower-case words, separated by commas"


def _unregistered(root, metrics):
    code = {path: tree.read(root, path) for path in tree.files(root, (".cc", ".h"), CODE)}
    for metric in metrics:
        room = metric.table.split("/", maxsplit=1)[0]
        uses = [
            path
            for path, text in code.items()
            if path.startswith(room + "/")
            and path != metric.table
            and re.search(rf"\btable::{metric.constant}\b", text)
        ]
        if not uses:
            yield tree.Problem(metric.table, metric.line, f"nothing registers {metric.name}")


def _beside_the_tables(root):
    all_tables = {table for group in tables.TABLES.values() for table in group}
    for path in tree.files(root, (".cc", ".h"), CODE):
        if path in all_tables:
            continue
        text = tree.read(root, path)
        for match in LITERAL.finditer(text):
            if "//" in text[text.rfind("\n", 0, match.start()) + 1 : match.start()]:
                continue
            line = text.count("\n", 0, match.start()) + 1
            yield tree.Problem(path, line, f"{match[1]} stands here by its name: take it from a table of metrics")


def _unknown(root, names):
    for path in tree.files(root, SUFFIXES):
        if path.startswith(LEFT_OUT):
            continue
        text = tree.read(root, path)
        for match in NAME.finditer(text):
            name = match[0]
            for series in SERIES:
                name = name.removesuffix(series)
            known = name in names or (name.endswith("_") and any(n.startswith(name) for n in names))
            if not known:
                line = text.count("\n", 0, match.start()) + 1
                yield tree.Problem(path, line, f"no table of metrics has {name}")


if __name__ == "__main__":
    tree.report(problems(tree.root_argument()), "metrics, their tables and their names")
