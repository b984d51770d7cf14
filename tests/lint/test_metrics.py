import metrics
import pytest

import metric_table

TABLE = """// The router's.
#ifndef A
namespace metrics::table {

// Requests.

inline constexpr telemetry::CounterInfo kRequestsTotal = {
    "expertmesh_router_requests_total", "code", "Requests "
    "answered"};
inline constexpr telemetry::HistogramInfo kWaitSeconds = {"expertmesh_router_wait_seconds", "", "Waits"};

}  // namespace
"""
PATH = "router_service/metrics/metric_table.h"
CODE = "Register(table::kRequestsTotal); Register(table::kWaitSeconds);\n"


def found(written, files=None, table=TABLE, code=CODE):
    root = written({PATH: table, "router_service/metrics.cc": code, **(files or {})})
    (root / "deploy").mkdir(exist_ok=True)
    (root / metric_table.DOCS).write_text(metric_table.as_markdown(metric_table.read(root)))
    return [f"{p.path}:{p.line} {p.text}" for p in metrics.problems(root)]


def test_a_table_is_read_as_it_stands(written):
    requests, wait = metric_table.read(written({PATH: TABLE}))
    assert (requests.name, requests.type, requests.labels) == (
        "expertmesh_router_requests_total",
        "counter",
        ("code",),
    )
    assert (requests.help, requests.unit, requests.section) == ("Requests answered", "", "Requests.")
    assert (wait.type, wait.labels, wait.unit, wait.line) == ("histogram", (), "seconds", 10)


@pytest.mark.parametrize(
    "text",
    [
        "expertmesh_router_requests_total{code}",
        "rate(expertmesh_router_wait_seconds_bucket[1m])",
        "all of expertmesh_router_wait_",
        "expertmesh:wait:ratio, expertmesh_test_other_total",
    ],
)
def test_names_that_a_table_has(written, text):
    assert found(written, {"README.md": text, "deploy/observability/a.json": text}) == []


@pytest.mark.parametrize(
    "path", ["README.md", "deploy/observability/a.json", "deploy/observability/rules.yml", "tests/a.py"]
)
def test_names_that_no_table_has(written, path):
    text = "\nexpertmesh_router_gone_total expertmesh_expert_gone_bucket\n"
    assert found(written, {path: text}) == [
        f"{path}:2 no table of metrics has expertmesh_router_gone_total",
        f"{path}:2 no table of metrics has expertmesh_expert_gone",
    ]


def test_an_entry_that_nothing_registers(written):
    assert found(written, code="Register(table::kRequestsTotal);\n") == [
        f"{PATH}:10 nothing registers expertmesh_router_wait_seconds"
    ]


def test_a_name_beside_the_tables(written):
    (problem,) = found(written, {"router_service/a.cc": 'Register("expertmesh_router_requests_total");\n'})
    assert problem.startswith("router_service/a.cc:1 expertmesh_router_requests_total stands here")
    assert found(written, {"router_service/a.cc": '// "expertmesh_router_requests_total"\n'}) == []


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ('telemetry::GaugeInfo kRequestsTotal = {"expertmesh_router_requests_total", "code"', "is a gauge"),
        ('telemetry::CounterInfo kRequests = {"expertmesh_router_requests", "code"', "is a counter"),
        ('telemetry::CounterInfo kOther = {"expertmesh_router_requests_total", "code"', "kRequestsTotal"),
        ('telemetry::CounterInfo kRequestsTotal = {"expertmesh_expert_requests_total", "code"', "begins with"),
        ('telemetry::CounterInfo kRequestsTotal = {"expertmesh_router_requests_total", "Code"', "lower-case"),
        ('telemetry::GaugeInfo kRequestsCount = {"expertmesh_router_requests_count", "code"', "histogram does"),
        ('telemetry::HistogramInfo kWaitSeconds = {"expertmesh_router_wait_seconds", "code"', "already"),
    ],
)
def test_entries_that_break_a_rule(written, entry, fault):
    before = 'telemetry::CounterInfo kRequestsTotal = {\n    "expertmesh_router_requests_total", "code"'
    assert before in TABLE
    assert any(fault in problem for problem in found(written, table=TABLE.replace(before, entry)))


def test_docs_that_are_not_what_the_tables_say(written):
    root = written({PATH: TABLE, "router_service/metrics.cc": CODE, metric_table.DOCS: "old"})
    assert [p.text for p in metrics.problems(root)] == [
        "is not what the tables say: run deploy/metric_table.py --write"
    ]
