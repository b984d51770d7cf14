#!/usr/bin/env python3
"""Makes the dashboards of Grafana, from the table of metrics.

  dashboards.py --write   writes dashboards/*.json
  dashboards.py --check   exit status 1 when they are not what this makes

With the Python of deploy/venv.sh.
"""

import pathlib
import sys

import experts
import latency
import nodes
import overview
from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model
from panels import SOURCE

FOLDER = pathlib.Path(__file__).resolve().parent / "dashboards"
ALL = {"overview": overview, "experts": experts, "latency": latency, "nodes": nodes}
TAG = "expertmesh"


def _variable(name, label, query):
    variable = dashboard.QueryVariable(name).label(label).query(query).datasource(SOURCE)
    # As the time range changes: nodes come and go.
    return variable.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)


def _variables(extra):
    yield dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    for name, query in (
        ("job", "label_values(expertmesh_build_info, job)"),
        ("instance", 'label_values(expertmesh_build_info{job=~"$job"}, instance)'),
    ):
        variable = _variable(name, name.capitalize(), query).multi(True).include_all(True).all_value(".*")
        yield variable.sort(model.VariableSort.ALPHABETICAL_ASC).current(
            model.VariableOption(selected=True, text=["All"], value=["$__all"])
        )
    for name, label, metric in extra:
        query = f'label_values({metric}{{job=~"$job", instance=~"$instance"}}, {name})'
        yield _variable(name, label, query).sort(model.VariableSort.NUMERICAL_ASC)


def make(page):
    """The dashboard that a module describes."""
    made = dashboard.Dashboard(page.TITLE).uid(page.UID).description(page.ABOUT).tags([TAG])
    made.time("now-1h", "now").refresh("30s").readonly().tooltip(model.DashboardCursorSync.CROSSHAIR)
    links = dashboard.DashboardLink("Expertmesh").type(model.DashboardLinkType.DASHBOARDS).tags([TAG])
    made.link(links.as_dropdown(False).include_vars(True).keep_time(True))
    for variable in _variables(page.VARIABLES):
        made.with_variable(variable)
    for title, panels in page.ROWS.items():
        row = dashboard.Row(title).collapsed(title in page.CLOSED)
        if title in page.CLOSED:
            for panel in panels():
                row.with_panel(panel)
            made.with_row(row)
        else:
            made.with_row(row)
            for panel in panels():
                made.with_panel(panel)
    built = made.build()
    number = 0
    for panel in built.panels:
        for each in (panel, *(getattr(panel, "panels", None) or [])):
            number += 1
            each.id_val = number
    return built


def texts():
    """By path, what each file must be."""
    encoder = JSONEncoder(sort_keys=True, indent=2)
    return {FOLDER / f"{name}.json": encoder.encode(make(page)) + "\n" for name, page in ALL.items()}


def main(arguments):
    made = texts()
    if arguments == ["--write"]:
        FOLDER.mkdir(exist_ok=True)
        for path, text in made.items():
            path.write_text(text, encoding="utf-8")
        return 0
    if arguments == ["--check"]:
        there = {path: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
        wrong = sorted(path.name for path in {*made, *there} if made.get(path) != there.get(path))
        for name in wrong:
            print(f"{name} is not what dashboards.py makes: run dashboards.py --write", file=sys.stderr)
        return 1 if wrong else 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
