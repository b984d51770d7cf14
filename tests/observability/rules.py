"""The rules and dashboards of deploy/observability, as tests read them."""

import functools
import json
import pathlib
import sys

import promql
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "deploy"))

import metric_table  # noqa: E402  pylint: disable=wrong-import-position

OBSERVABILITY = ROOT / "deploy" / "observability"
PROMETHEUS = OBSERVABILITY / "prometheus"
DASHBOARDS = OBSERVABILITY / "grafana" / "dashboards"
TARGET = frozenset({"job", "instance"})
# What Prometheus makes by itself.
BUILT_IN = {"up": TARGET, "ALERTS": TARGET | {"alertname", "alertstate", "severity"}}


def load(name):
    """All rules of a file."""
    groups = yaml.safe_load((PROMETHEUS / name).read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


@functools.cache
def recordings():
    return load("recording_rules.yaml")


@functools.cache
def alerts():
    return load("alert_rules.yaml")


@functools.cache
def dashboards():
    """By file name."""
    paths = sorted(DASHBOARDS.glob("*.json"))
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def panels(dashboard):
    """All of them, without rows."""
    inside = [inner for panel in dashboard["panels"] for inner in (panel, *panel.get("panels", []))]
    return [panel for panel in inside if panel["type"] != "row"]


@functools.cache
def known():
    """By the name of a series: its labels, and what type of metric it is."""
    series = {name: (labels, "gauge") for name, labels in BUILT_IN.items()}
    for metric in metric_table.read():
        labels = TARGET | set(metric.labels)
        if metric.type == "histogram":
            series |= {f"{metric.name}_{part}": (labels, "histogram") for part in ("sum", "count")}
            series[f"{metric.name}_bucket"] = (labels | {"le"}, "histogram")
        else:
            series[metric.name] = (labels, metric.type)
    for rule in recordings():
        read = promql.read(rule["expr"])
        by = {label for label in read.grouped if label != "le"}
        taken = [series[selector.name][0] for selector in read.selectors if selector.name in series]
        aggregated = read.functions & promql.AGGREGATIONS
        series[rule["record"]] = (by if aggregated else frozenset().union(*taken), "gauge")
    return series


def fill(expression, interval):
    """A dashboard's expression with its variables chosen."""
    values = {"__rate_interval": interval, "job": ".*", "instance": ".*", "layer": "0"}
    for name, value in values.items():
        expression = expression.replace(f"${name}", value)
    assert "$" not in expression, f"a variable without a value: {expression}"
    return expression
