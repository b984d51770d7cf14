"""Dashboards and provisioning of Grafana, as files. Whether their expressions find something,
integration/test_dashboards.py sees."""

import copy
import subprocess
import sys

import lint
import promql
import pytest
import rules
import yaml

MAKER = rules.OBSERVABILITY / "grafana" / "dashboards.py"
sys.path.insert(0, str(MAKER.parent))
sys.path.insert(0, str(rules.OBSERVABILITY))

import panels  # noqa: E402  pylint: disable=wrong-import-position
import stack  # noqa: E402  pylint: disable=wrong-import-position

NAMES = ["experts.json", "latency.json", "nodes.json", "overview.json"]


def test_they_are_what_the_script_makes():
    done = subprocess.run([sys.executable, MAKER, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(rules.dashboards()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_dashboard_works_in_any_grafana(name):
    assert lint.dashboard(rules.dashboards()[name]) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_description_begins_with_what_the_metric_is(name):
    helps = {metric.name: metric.help for metric in panels.METRICS.values()}
    for panel in rules.panels(rules.dashboards()[name]):
        first = promql.read(rules.fill(panel["targets"][0]["expr"], "5m")).selectors[0].name
        told = helps.get(first) or helps.get(panels.SERIES.sub("", first))
        assert first == "ALERTS" or panel["description"].startswith(told.rstrip(".") + "."), panel["title"]


def test_series_of_experts_say_that_they_are_not_all():
    seen = 0
    for dashboard in rules.dashboards().values():
        for panel in rules.panels(dashboard):
            if any("expert_tokens_total" in target["expr"] for target in panel["targets"]):
                assert "--expert-metrics" in panel["description"], panel["title"]
                seen += 1
    assert seen >= 2


def test_a_name_that_no_table_has_makes_no_panel():
    with pytest.raises(panels.UnknownMetric, match="expertmesh_gone_total"):
        panels.graph("Tokens", "cps", panels.Query("sum(rate(expertmesh_gone_total{@}[@]))"))


def broken(change):
    made = copy.deepcopy(rules.dashboards()["overview.json"])
    graph = next(p for p in rules.panels(made) if p["title"] == "Tokens by router")
    change(made, graph, graph["targets"][0])
    return lint.dashboard(made)


def replace(old, new):
    def change(_made, _graph, target):
        assert old in target["expr"]
        target["expr"] = target["expr"].replace(old, new)

    return change


def without(key):
    return lambda _made, graph, _target: graph.pop(key)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (replace("router_tokens_total", "gone_total"), "there is no metric 'expertmesh_gone_total'"),
        (replace("{job=", "{node="), "has no label node"),
        (replace("by (instance)", "by (layer)"), "has a label layer"),
        (replace("$__rate_interval", "5m"), "[5m] does not suit"),
        (replace("rate(", "irate("), "irate()"),
        (replace("sum by (instance) ", ""), "aggregate it"),
        (replace("rate(", "floor("), "only grows"),
        (replace("tokens_total", "tokens_in_flight"), "is a gauge"),
        (replace('instance=~"$instance"', 'instance=~"$place"'), "no variable place"),
        (replace(', instance=~"$instance"', ""), "not of the job and instance"),
        (without("description"), "description is missing"),
        (without("datasource"), "not the variable"),
        (lambda _made, graph, _target: graph["fieldConfig"]["defaults"].pop("unit"), "unit is missing"),
        (lambda _made, _graph, target: target.update(legendFormat="{{node}}"), "has a label node"),
        (lambda _made, _graph, target: target["datasource"].update(uid="abc"), "not the variable"),
        (lambda made, _graph, _target: made["templating"]["list"].pop(0), "variable for the data source"),
        (lambda made, _graph, _target: made["templating"]["list"].pop(1), "no variable job"),
        (lambda made, _graph, _target: made.update(uid="x"), "uid x"),
    ],
)
def test_a_broken_dashboard(change, fault):
    assert any(fault in each for each in broken(change)), broken(change)


# --- Provisioning ----------------------------------------------------------------------------------


def provisioned(kind):
    path = rules.OBSERVABILITY / "grafana" / "provisioning" / kind / "expertmesh.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_sources_find_each_other_and_what_up_sh_runs():
    sources = {source["uid"]: source for source in provisioned("datasources")["datasources"]}
    kinds = {uid: source["type"] for uid, source in sources.items()}
    assert kinds == {
        "expertmesh-prometheus": "prometheus",
        "expertmesh-router": "jaeger",
        "expertmesh-jaeger": "jaeger",
        "expertmesh-tempo": "tempo",
    }
    at = stack.addresses(50300)
    assert sources["expertmesh-prometheus"]["url"] == f"http://{at['PROMETHEUS_HTTP']}"
    assert sources["expertmesh-jaeger"]["url"] == f"http://{at['JAEGER_HTTP']}"
    # deploy/local.sh: metrics are 100 above the port of the router.
    assert sources["expertmesh-router"]["url"] == "http://127.0.0.1:50150"
    data = sources["expertmesh-prometheus"]["jsonData"]
    destinations = data["exemplarTraceIdDestinations"]
    assert {each["datasourceUid"] for each in destinations} <= set(sources)
    assert {each["name"] for each in destinations} == {"trace_id"}
    scrapes = yaml.safe_load((rules.PROMETHEUS / "prometheus.yaml").read_text(encoding="utf-8"))
    assert data["timeInterval"] == scrapes["global"]["scrape_interval"]
    assert sources["expertmesh-tempo"]["jsonData"]["serviceMap"]["datasourceUid"] in sources


def test_dashboards_come_from_files():
    (provider,) = provisioned("dashboards")["providers"]
    assert provider["type"] == "file" and provider["options"]["path"]
