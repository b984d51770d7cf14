"""What is wrong with expressions and dashboards: names, labels, and what makes a dashboard work in any Grafana."""

import re

import promql
import rules

RATES = {"rate", "increase"}
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
# What a legend shows of a series.
LEGEND_LABEL = re.compile(r"\{\{\s*(\w+)\s*\}\}")
UID = re.compile(r"expertmesh-[a-z-]{1,29}")


def names(expression, legend=""):
    """Metrics and labels that no process has."""
    read = promql.read(expression)
    labels = set()
    for selector in read.selectors:
        if selector.name not in rules.known():
            yield f"there is no metric {selector.name!r}"
            continue
        of_metric = rules.known()[selector.name][0]
        labels |= of_metric
        for label in selector.labels - of_metric:
            yield f"{selector.name} has no label {label}"
    for label in (read.grouped | set(LEGEND_LABEL.findall(legend))) - labels:
        yield f"none of its metrics has a label {label}"


def counters(expression):
    """Counters that are not looked at by their rate, or not summed up; and old habits."""
    read = promql.read(expression.replace("offset $__rate_interval", ""))
    if "irate" in read.functions:
        yield "irate() sees two samples only: use rate()"
    for text in read.ranges:
        if text != "[$__rate_interval]":
            yield f"{text} does not suit every scrape interval: use [$__rate_interval]"
    for selector in read.selectors:
        kind = rules.known().get(selector.name, (None, "gauge"))[1]
        rated = RATES & set(selector.within)
        if kind == "gauge" and rated:
            yield f"{selector.name} is a gauge: it has no rate"
        if kind != "gauge" and not rated and not _is_new(selector.name, expression):
            yield f"{selector.name} only grows: take its rate"
        if rated and not promql.AGGREGATIONS & set(selector.within):
            yield f"{selector.name}: aggregate it; each process has series of its own"


def _is_new(counter, expression):
    """The counter stands beside its increase for when it was not there before."""
    new = rf"\({counter}\{{[^}}]*\}} unless {counter}\{{[^}}]*\}} offset \$__rate_interval\) or increase\({counter}\b"
    return re.search(new, expression) is not None


def panel(of, dashboard):
    """Faults of one panel."""
    if of.get("datasource") != SOURCE or any(t.get("datasource") != SOURCE for t in of["targets"]):
        yield "its data source is not the variable"
    if not of.get("title") or not of.get("description"):
        yield "title or description is missing"
    if not of.get("fieldConfig", {}).get("defaults", {}).get("unit"):
        yield "unit is missing"
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    for target in of["targets"]:
        expression = target["expr"]
        for variable in set(re.findall(r"\$(\w+)", expression)) - variables - {"__rate_interval"}:
            yield f"there is no variable {variable}"
        filled = expression.replace("$__rate_interval", "5m")
        yield from names(filled, target["legendFormat"])
        yield from counters(expression)
        for selector in promql.read(filled).selectors:
            if selector.name != "ALERTS" and not rules.TARGET <= selector.labels:
                yield f"{selector.name} is not of the job and instance that are chosen"


def dashboard(made):
    """Faults of a whole dashboard, as text."""
    found = []
    if not UID.fullmatch(made["uid"]):
        found.append(f"uid {made['uid']} does not begin with expertmesh-, or is too long")
    variables = {variable["name"]: variable for variable in made["templating"]["list"]}
    if variables.get("datasource", {}).get("type") != "datasource":
        found.append("there is no variable for the data source")
    for name in ("job", "instance"):
        if not variables.get(name, {}).get("includeAll"):
            found.append(f"there is no variable {name} that may be all")
    for name, variable in variables.items():
        if variable["type"] == "query" and variable["datasource"] != SOURCE:
            found.append(f"variable {name}: its data source is not the variable")
    ids = [each["id"] for row in made["panels"] for each in (row, *row.get("panels", []))]
    if len(ids) != len(set(ids)):
        found.append("two panels have the same id")
    for each in rules.panels(made):
        found += [f"{each.get('title')}: {fault}" for fault in panel(each, made)]
    return found
