"""Recording and alert rules: promtool accepts them, each does what it says, and each alert is in the runbook."""

import re
import shutil
import subprocess
import sys

import lint
import promql
import pytest
import rules
import yaml

sys.path.insert(0, str(rules.ROOT / "tests" / "integration"))

import readmes  # noqa: E402  pylint: disable=wrong-import-position

HERE = rules.ROOT / "tests" / "observability"
RUNBOOK = rules.OBSERVABILITY / "runbook.md"
CASES = sorted(HERE.glob("*_cases.yaml"))
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="deploy/packages.sh install --tests brings prometheus"
)


def promtool(*arguments):
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@needs_promtool
def test_promtool_accepts_rules_and_scrapes():
    for name in ("recording_rules.yaml", "alert_rules.yaml"):
        code, said = promtool("check", "rules", rules.PROMETHEUS / name)
        assert code == 0 and "duplicate" not in said, said
    code, said = promtool("check", "config", rules.PROMETHEUS / "prometheus.yaml")
    assert code == 0 and "2 rule files found" in said, said


@needs_promtool
def test_promtool_accepts_every_expression_of_dashboards(tmp_path):
    expressions = [
        rules.fill(target["expr"], "5m")
        for dashboard in rules.dashboards().values()
        for panel in rules.panels(dashboard)
        for target in panel["targets"]
    ]
    made = [{"record": f"panel:{i}", "expr": expression} for i, expression in enumerate(expressions)]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": made}]}))
    code, said = promtool("check", "rules", path)
    assert code == 0 and f"SUCCESS: {len(expressions)} rules" in said, said


@needs_promtool
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_rules_do_what_they_say(path):
    code, said = promtool("test", "rules", path)
    assert code == 0, said


def cases():
    return [case for path in CASES for case in yaml.safe_load(path.read_text())["tests"]]


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not():
    fires, quiet = set(), set()
    for case in cases():
        for check in case.get("alert_rule_test", []):
            (fires if check["exp_alerts"] else quiet).add(check["alertname"])
    names = {rule["alert"] for rule in rules.alerts()}
    assert fires == quiet == names


def test_every_recording_has_a_value():
    checks = [check for case in cases() for check in case.get("promql_expr_test", [])]
    told = {
        selector.name
        for check in checks
        if check["exp_samples"]
        for selector in promql.read(check["expr"]).selectors
    }
    assert told == {rule["record"] for rule in rules.recordings()}


@pytest.mark.parametrize(
    "rule",
    [*rules.recordings(), *rules.alerts()],
    ids=lambda rule: rule.get("record", rule.get("alert")),
)
def test_names_and_labels_exist(rule):
    text = " ".join(rule.get("annotations", {}).values())
    legend = " ".join(f"{{{{{label}}}}}" for label in re.findall(r"\$labels\.(\w+)", text))
    assert list(lint.names(rule["expr"], legend)) == []


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("expertmesh_gone_total > 0", "no metric 'expertmesh_gone_total'"),
        ("expertmesh:gone:ratio > 0", "no metric 'expertmesh:gone:ratio'"),
        ('expertmesh_router_nodes{node="a"} > 0', "no label node"),
        ("sum by (node) (expertmesh:node_balance:ratio) > 0", "has a label node"),
    ],
)
def test_names_that_do_not_exist(expression, fault):
    assert any(fault in each for each in lint.names(expression))


@pytest.mark.parametrize("rule", rules.alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_means(rule):
    assert re.fullmatch("Expertmesh[A-Z][A-Za-z]+", rule["alert"])
    assert rule["labels"]["severity"] in ("critical", "warning")
    annotations = rule["annotations"]
    assert annotations["summary"] and not annotations["summary"].endswith(".")
    assert re.search(r"\{\{ \$(value|labels)", annotations["description"])


def test_every_alert_is_in_the_runbook_and_nothing_else():
    text = RUNBOOK.read_text(encoding="utf-8")
    titles = re.findall(r"^### (\w+)$", text, re.MULTILINE)
    assert titles == [rule["alert"] for rule in rules.alerts()], "in the order of the rules"
    anchors = readmes.anchors(text)
    for rule in rules.alerts():
        path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert path == RUNBOOK.relative_to(rules.ROOT).as_posix()
        assert anchor == rule["alert"].lower() and anchor in anchors
    for section in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        for part in ("Means", "Look at", "Do"):
            assert f"- **{part}:**" in section, f"{section.splitlines()[0]}: {part}"
    assert set(readmes.links(text)) <= {f"#{anchor}" for anchor in anchors}


def test_the_runbook_names_panels_that_there_are():
    text = " ".join(RUNBOOK.read_text(encoding="utf-8").split())
    titles = {
        panel["title"]
        for dashboard in rules.dashboards().values()
        for panel in (*rules.panels(dashboard), *dashboard["panels"])
    }
    named = re.findall(r'"([A-Z][^"]+)"', text)
    assert named
    assert set(named) <= titles


def test_an_error_is_the_same_everywhere():
    """What a caller cannot help: in every window, and on the dashboard."""
    ratios = [rule["expr"] for rule in rules.recordings() if "request_errors" in rule["record"]]
    (panel,) = [
        panel["targets"][0]["expr"]
        for panel in rules.panels(rules.dashboards()["overview.json"])
        if panel["title"] == "Requests that failed"
    ]
    codes = [re.findall(r'code=~"([^"]+)"', expression) for expression in (*ratios, panel)]
    assert len(codes) == 5 and all(each == codes[0] for each in codes)


def test_expressions_are_read_whole():
    """What without_comparisons makes of alerts is still PromQL, and asks for the same metrics."""
    for rule in rules.alerts():
        plain = promql.without_comparisons(rule["expr"])
        assert plain != rule["expr"]
        names = [selector.name for selector in promql.read(plain).selectors]
        assert names == [selector.name for selector in promql.read(rule["expr"]).selectors]
