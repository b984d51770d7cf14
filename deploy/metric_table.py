#!/usr/bin/env python3
"""The metrics of all processes, as the tables in the code say them.

  deploy/metric_table.py              JSON, for programs: name, type, labels, unit, help, process, section
  deploy/metric_table.py --write      writes deploy/metrics.md

Standard library only.
"""

import dataclasses
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]

# By process: its tables.
TABLES = {
    "every process": ("common/telemetry/metric_table.h",),
    "router": (
        "router_service/metrics/metric_table.h",
        "router_service/metrics/balance_metric_table.h",
    ),
    "node": ("expert_service/metric_table.h",),
}
DOCS = "deploy/metrics.md"

STRING = r'"(?:[^"\\]|\\.)*"'
ENTRY = re.compile(
    rf"inline constexpr (?:telemetry::)?(Counter|Gauge|Histogram)Info (k\w+)\s*=\s*"
    rf"\{{\s*({STRING}),\s*({STRING}),\s*((?:{STRING}\s*)+)\}};"
)
# A comment with an empty line after it.
SECTION = re.compile(r"^((?://[^\n]*\n)+)\n", re.MULTILINE)
UNITS = ("seconds", "bytes")


@dataclasses.dataclass(frozen=True)
class Metric:
    name: str
    type: str  # counter, gauge or histogram
    labels: tuple
    unit: str  # "seconds", "bytes", or "" for plain numbers
    help: str
    process: str
    section: str
    table: str  # Path of the table, and the line and the constant in it.
    line: int
    constant: str


def read(root=ROOT):
    """All metrics, in the order of the tables."""
    metrics = []
    for process, tables in TABLES.items():
        for table in tables:
            if (root / table).exists():
                metrics += _read_table((root / table).read_text(encoding="utf-8"), process, table)
    return metrics


def _read_table(text, process, table):
    # Before the namespace: what the whole file is.
    begin = text.index("\nnamespace ")
    sections = [(m.start(), _comment(m[1])) for m in SECTION.finditer(text, begin)]
    for match in ENTRY.finditer(text):
        name = _string(match[3])
        stem = name.removesuffix("_total")
        yield Metric(
            name=name,
            type=match[1].lower(),
            labels=tuple(label for label in _string(match[4]).split(",") if label),
            unit=next((unit for unit in UNITS if stem.endswith("_" + unit)), ""),
            help=_string(match[5]),
            process=process,
            section=next((s for at, s in reversed(sections) if at < match.start()), ""),
            table=table,
            line=text.count("\n", 0, match.start()) + 1,
            constant=match[2],
        )


def _string(literals):
    return "".join(json.loads(literal) for literal in re.findall(STRING, literals))


def _comment(lines):
    return " ".join(line.removeprefix("//").strip() for line in lines.splitlines())


def as_json(metrics):
    shown = ("name", "type", "labels", "unit", "help", "process", "section")
    rows = [{key: getattr(metric, key) for key in shown} for metric in metrics]
    return json.dumps(rows, indent=2)


def as_markdown(metrics):
    lines = [
        "# Metrics",
        "",
        "Made by `deploy/metric_table.py --write` from the tables in the code; `deploy/metric_table.py` prints them as JSON.",
        "A name in braces is a label. Durations are in seconds, sizes in bytes.",
    ]
    heading = ()
    for metric in metrics:
        if heading[:1] != (metric.process,):
            lines += ["", f"## {metric.process[0].upper()}{metric.process[1:]}"]
        if heading != (metric.process, metric.section):
            heading = (metric.process, metric.section)
            lines += ["", metric.section, "", "| metric | type | what it says |", "|---|---|---|"]
        labels = f"{{{','.join(metric.labels)}}}" if metric.labels else ""
        text = metric.help.replace("|", "\\|").replace("*", "\\*")
        lines.append(f"| `{metric.name}{labels}` | {metric.type} | {text} |")
    return "\n".join(lines) + "\n"


def main(arguments):
    if arguments == ["--write"]:
        (ROOT / DOCS).write_text(as_markdown(read()), encoding="utf-8")
    elif not arguments:
        print(as_json(read()))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
