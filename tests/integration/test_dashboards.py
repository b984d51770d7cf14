"""Every expression of every dashboard, rule and alert of deploy/observability finds something in the real Prometheus
that scrapes a real mesh, in which went wrong what can go wrong."""

import concurrent.futures
import contextlib
import json
import math
import sys
import time
import types

import grpc
import numpy as np
import pytest
import yaml

import bad_node
import expertmesh
from bad_node import BadNode
from expertmesh.v1 import control_pb2, control_pb2_grpc, trace_pb2
from internal_proto import ExpertStub, message
from mesh import PATIENCE, Mesh, hidden_states, wait_until
from prometheus_server import Prometheus, needs_prometheus
from readmes import ROOT
from supervisor.state import State
from test_failures import Load, link_is

sys.path[:0] = [str(ROOT / "tests" / "observability"), str(ROOT / "deploy" / "observability")]

# pylint: disable=wrong-import-position
import promql  # noqa: E402
import rules  # noqa: E402
import stack  # noqa: E402

pytestmark = needs_prometheus
FLAGS = [
    # Links that are narrower than rows, so that there is something to lose.
    "--wire-hidden-states=f16",
    "--wire-partials=f16",
    "--cross-check-interval=10ms",
    # The router keeps the last traces; it is to have those that Prometheus saw a moment ago.
    "--trace-ratio=0.02",
    "--max-tokens-in-flight=512",
    # As long as no fault is wanted there is none: not on a slow machine either.
    "--attempt-timeout=2s",
]
# A node that has memory for little more than a layer.
SMALL = ["--memory", str(14 * 24576)]
INTERVAL = "500ms"


def config(folder, mesh):
    """What stack.py makes of the shipped configuration, but that it looks more often."""
    state = State(folder / "local")
    state.folder.mkdir()
    places = [f"127.0.0.1:{program.metrics_port}" for program in (mesh.router, *mesh.nodes)]
    state.write_mesh({"metrics": places[0], "node_metrics": places[1:]})
    at = {"COLLECTOR_METRICS": places[0]}
    path = stack.write_scrapes(types.SimpleNamespace(folder=folder), at, state.folder)
    made = yaml.safe_load(path.read_text())
    made["global"] |= {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL}
    # The other job is about spans, for which nothing here asks.
    made["scrape_configs"] = made["scrape_configs"][:1]
    folder = path.parent
    return folder, made


class Serving:
    """A mesh under load, one of whose nodes may be made bad, and Prometheus beside it."""

    def __init__(self, mesh, bad, load, prometheus):
        self.mesh, self.bad, self.load, self.prometheus = mesh, bad, load, prometheus

    def fault(self, what, happened):
        """The node is bad until `happened` and it is out of use; then it is well again."""
        for name, value in what.items():
            setattr(self.bad, name, value)
        wait_until(happened, f"{what} shows")
        self.mesh.watch(link_is(self.bad, control_pb2.NODE_LINK_EJECTED), "it is ejected")
        self.bad.heal()
        self.mesh.watch(link_is(self.bad, control_pb2.NODE_LINK_UP), "it is used again")

    def counts(self, name, **labels):
        try:
            return self.mesh.router.metric(name, **labels) > 0
        except AssertionError:  # Series of faults come with the first.
            return False


def zeros(answer):
    answer.partials.data = bytes(len(answer.partials.data))
    return [answer]


def cause_faults(serving, checkpoint):
    faults = "expertmesh_router_node_faults_total"
    serving.fault({"spoil": bad_node.unreadable(2)}, lambda: serving.counts(faults, fault="unreadable"))
    serving.fault({"spoil": bad_node.silent}, lambda: serving.counts(faults, fault="silent"))
    serving.bad.spoil = zeros
    disagreements = "expertmesh_router_cross_check_disagreements_total"
    wait_until(lambda: serving.counts(disagreements), "the nodes disagree")
    serving.bad.heal()
    wait_until(lambda: too_much(serving, checkpoint), "a request is refused")
    # Beyond what f16 can hold, on the way there and back.
    for layer in checkpoint.moe_layers:
        serving.mesh.client.forward(layer, np.full((4, checkpoint.d_model), 1e6, np.float32))
    refuse_batch(serving.mesh.nodes[0])


def too_much(serving, checkpoint):
    """Sends more at once than the router takes. Whether it has refused a request: the client tries again by itself."""

    def send(_):
        with contextlib.suppress(expertmesh.ResourceExhausted):
            serving.mesh.client.forward(0, hidden_states(400, checkpoint.d_model))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(8)))
    return serving.counts("expertmesh_router_requests_total", code="RESOURCE_EXHAUSTED")


def refuse_batch(node):
    """Asks a node for a layer that there is none of."""
    with grpc.insecure_channel(node.address) as channel:
        request = message("ComputeRequest")(batch_id=1, layer=99)
        answers = ExpertStub(channel).Compute(iter([request]), timeout=PATIENCE)
        assert next(iter(answers)).status.code != 0


@pytest.fixture(name="serving", scope="module")
def _serving(tmp_path_factory, checkpoint):
    folder = tmp_path_factory.mktemp("dashboards")
    with Mesh(folder) as mesh:
        mesh.start_nodes(checkpoint.path, [[], SMALL])
        with BadNode(mesh.nodes[0]) as bad:
            mesh.start_router(checkpoint.path, *FLAGS, nodes=[bad.address, mesh.nodes[1].address])
            mesh.wait_ready()
            where, made = config(folder, mesh)
            with Prometheus(where, made) as prometheus, Load(mesh, checkpoint, callers=2) as load:
                prometheus.wait_up(3)
                serving = Serving(mesh, bad, load, prometheus)
                cause_faults(serving, checkpoint)
                yield serving
            mesh.router.stop()


def expressions():
    """By where it stands: what Prometheus is asked."""
    found = {}
    for name, dashboard in rules.dashboards().items():
        for panel in rules.panels(dashboard):
            for target in panel["targets"]:
                where = f"{name}: {panel['title']} {target['refId']}"
                assert where not in found
                found[where] = rules.fill(target["expr"], "2m")
    for rule in rules.recordings():
        found[rule["record"]] = rule["expr"]
        found[f"{rule['record']}, as it is recorded"] = rule["record"]
    for rule in rules.alerts():
        found[rule["alert"]] = promql.without_comparisons(rule["expr"])
    return found


def test_every_expression_finds_something(serving):
    left = expressions()
    assert len(left) > 100

    def none_left():
        for where, expression in list(left.items()):
            if any(math.isfinite(value) for value in serving.prometheus.values(expression)):
                del left[where]
        return not left

    try:
        wait_until(none_left, "all find something")
    except AssertionError:
        raise AssertionError(json.dumps(left, indent=1)) from None


def test_rules_are_loaded_and_well(serving):
    wanted = len(rules.recordings()) + len(rules.alerts())

    def told():
        groups = serving.prometheus.ask("rules")["groups"]
        every = [rule for group in groups for rule in group["rules"]]
        return every if all(rule["health"] != "unknown" for rule in every) else None

    every = wait_until(told, "every rule was evaluated")
    assert len(every) == wanted
    assert not [rule for rule in every if rule["health"] != "ok"]


def test_alerts_fire_for_what_went_wrong(serving):
    def firing():
        alerts = serving.prometheus.ask("alerts")["alerts"]
        names = {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}
        return names >= {
            "ExpertmeshNodeEjected",
            "ExpertmeshWrongAnswers",
            "ExpertmeshCrossCheckDisagrees",
        }

    wait_until(firing, "alerts fire")


def test_the_trace_of_an_exemplar_is_one_that_the_router_knows(serving):
    now = time.time()
    panel = "histogram_quantile(0.99, sum by (le) (rate(expertmesh_router_request_duration_seconds_bucket[2m])))"

    def newest():
        found = serving.prometheus.ask("query_exemplars", query=panel, start=now - 600, end=now + 600)
        each = [exemplar for series in found or [] for exemplar in series["exemplars"]]
        return max(each, key=lambda exemplar: exemplar["timestamp"]) if each else None

    def known():
        stub = control_pb2_grpc.ControlStub(serving.mesh.client.channel)
        trace_id = newest()["labels"]["trace_id"]
        try:
            answer = stub.GetTrace(trace_pb2.GetTraceRequest(trace_id=trace_id), timeout=PATIENCE)
        except grpc.RpcError as error:  # Its spans are made a moment after the answer, and it keeps the last ones.
            assert error.code() == grpc.StatusCode.NOT_FOUND, error
            return None
        return answer.traces_data

    wait_until(newest, "Prometheus has an exemplar")
    assert wait_until(known, "its trace is known")
