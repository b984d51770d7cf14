"""What the router's console is made of: the JSON under /api/v1/ against the answers of Control, and the paths of
Jaeger's query API."""

import json
import urllib.error
import urllib.parse
import urllib.request

import pytest
from google.protobuf import json_format

from expertmesh import ForwardOptions
from expertmesh.v1 import (
    balance_pb2,
    control_pb2,
    control_pb2_grpc,
    router_pb2,
    router_pb2_grpc,
)
from mesh import HOST, PATIENCE, Mesh, hidden_states, shards, wait_until

TRACE = f"{0xABC:032x}"


@pytest.fixture(scope="module")
def serving(tmp_path_factory, checkpoint):
    """A mesh that has answered one request for each layer, that of layer 0 as TRACE."""
    with Mesh(tmp_path_factory.mktemp("mesh")) as mesh:
        mesh.start(checkpoint.path, shards(2), "--trace-ratio=0", "--trace-slow=inf", "--balance=sign")
        for layer in checkpoint.moe_layers:
            parent = f"00-{TRACE}-{7:016x}-01" if layer == 0 else ""
            mesh.client.forward(
                layer, hidden_states(16, checkpoint.d_model), ForwardOptions(traceparent=parent)
            )
        yield mesh


def read(mesh, path, **query):
    """Status, headers and text of an answer."""
    url = f"http://{HOST}:{mesh.router.metrics_port}{path}?{urllib.parse.urlencode(query)}"
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def get(mesh, path, **query):
    status, headers, text = read(mesh, path, **query)
    assert (status, headers["Content-Type"]) == (200, "application/json"), text
    return json.loads(text)


def control(mesh):
    return control_pb2_grpc.ControlStub(mesh.client.channel)


def as_message(kind, answer):
    """Refuses fields that the message does not have."""
    return json_format.ParseDict(answer, kind())


def steady(read_both):
    """Both of two readings, once nothing changed between them."""

    def same():
        first, second = read_both()
        return (first,) if first == second else None

    (value,) = wait_until(same, "two readings of the same")
    return value


def test_the_topology_is_that_of_control(serving):
    def both():
        answer = as_message(control_pb2.GetTopologyResponse, get(serving, "/api/v1/topology"))
        told = control(serving).GetTopology(control_pb2.GetTopologyRequest(), timeout=PATIENCE)
        for topology in (answer.topology, told.topology):
            topology.balance.ClearField("since_change_ms")
            topology.balance.ClearField("since_tick_ms")
        return answer, told

    answer = steady(both)
    assert answer.topology.ready and len(answer.topology.nodes) == 2
    # What is not set is there as well: a page needs no defaults of its own.
    assert get(serving, "/api/v1/topology")["topology"]["missing"] == []


def test_model_balance_and_placement_are_those_of_control(serving):
    model = as_message(router_pb2.DescribeModelResponse, get(serving, "/api/v1/model"))
    stub = router_pb2_grpc.RouterStub(serving.client.channel)
    assert model == stub.DescribeModel(router_pb2.DescribeModelRequest(), timeout=PATIENCE)
    balance = get(serving, "/api/v1/balance")["balance"]
    assert balance["summary"]["role"] == "BALANCE_ROLE_AUTHORITY"
    assert {layer["policy"]["rule"] for layer in balance["layers"]} == {"BALANCE_RULE_SIGN"}
    assert get(serving, "/api/v1/placement")["placement"]["moves"]["phase"] == "idle"


def test_load_is_counted_exactly(serving, checkpoint):
    layers = get(serving, "/api/v1/load", scope="router")["layers"]
    assert [layer["layer"] for layer in layers] == checkpoint.moe_layers
    told = control(serving).GetLoad(control_pb2.GetLoadRequest(), timeout=PATIENCE)
    for layer, exact in zip(layers, told.layers, strict=True):
        assert [int(count) for count in layer["assignments"]] == list(exact.assignments)
        assert int(layer["tokens"]) == 16


def test_a_bias_is_that_of_its_epoch(serving, checkpoint):
    bias = control(serving).GetBias(balance_pb2.GetBiasRequest(), timeout=PATIENCE).bias
    assert as_message(balance_pb2.GetBiasResponse, get(serving, "/api/v1/bias")).bias == bias
    changed = balance_pb2.Bias(epoch=bias.epoch, layers=bias.layers)
    changed.layers[0].values[0] += 0.5
    control(serving).SetBias(balance_pb2.SetBiasRequest(bias=changed), timeout=PATIENCE)
    now = get(serving, "/api/v1/bias")["bias"]
    assert int(now["epoch"]) > bias.epoch and now["layers"][0]["values"][0] == pytest.approx(0.5)
    before = get(serving, "/api/v1/bias", epoch=bias.epoch)["bias"]
    assert before["layers"][0]["values"] == list(bias.layers[0].values)
    layer = checkpoint.moe_layers[0]
    changes = get(serving, "/api/v1/epochs")["epochs"]
    assert f"bias of layer {layer}" in changes[-1]["changes"]
    assert int(changes[-1]["epoch"]) == int(now["epoch"])


def test_questions_that_cannot_be_answered_say_what_to_do(serving):
    for path, query, status, text in (
        ("/api/v1/bias", {"epoch": "soon"}, 400, "epoch: use a whole number"),
        ("/api/v1/bias", {"epoch": 1 << 40}, 404, "epoch"),
        ("/api/v1/load", {"scope": "all"}, 400, "scope: use mesh or router"),
        ("/api/v1/traces", {"order": "best"}, 400, "order: use recent or slowest"),
        ("/api/v1/traces", {"limit": "-1"}, 400, "limit: use a whole number"),
        ("/api/v1/traces/77", {}, 400, "send 32 hexadecimal digits"),
        (f"/api/v1/traces/{5:032x}", {}, 404, "raise --trace-ratio"),
        ("/api/v1/nothing", {}, 404, "/api/v1/topology"),
    ):
        code, _, said = read(serving, path, **query)
        assert code == status and text in said, f"{path} {query}: {code} {said}"


def trace(mesh):
    return wait_until(
        lambda: read(mesh, f"/api/v1/traces/{TRACE}")[0] == 200
        and get(mesh, f"/api/v1/traces/{TRACE}"),
        "the trace is there",
    )


def spans_of(otlp):
    return {
        span["spanId"]: (span, process)
        for process in otlp["resourceSpans"]
        for scope in process["scopeSpans"]
        for span in scope["spans"]
    }


def test_a_trace_is_listed_and_downloaded(serving):
    spans = spans_of(trace(serving))
    names = sorted(span["name"] for span, _ in spans.values())
    assert names.count("expertmesh.dispatch") == 1
    assert names.count("expertmesh.internal.v1.Expert/Compute") == 4  # Both sides of two calls.
    for order in ("recent", "slowest"):
        (line,) = get(serving, "/api/v1/traces", order=order)["traces"]
        assert (line["trace_id"], line["spans"], line["kept"]) == (TRACE, len(spans), "sampled")
    _, headers, text = read(serving, f"/api/v1/traces/{TRACE}", download=1)
    assert headers["Content-Disposition"] == f'attachment; filename="trace-{TRACE}.otlp.json"'
    assert spans_of(json.loads(text)) == spans


def test_jaegers_paths_tell_the_same_trace(serving):
    spans = spans_of(trace(serving))
    assert get(serving, "/api/services")["data"] == ["expertmesh-expert", "expertmesh-router"]
    names = get(serving, "/api/services/expertmesh-expert/operations")["data"]
    own = {s["name"] for s, process in spans.values() if "expert" in json.dumps(process["resource"])}
    assert set(names) <= own and "expertmesh.node.compute" in names
    found = get(serving, "/api/traces", service="expertmesh-expert", tags='{"span.kind":"server"}')
    (by_search,) = found["data"]
    (by_id,) = get(serving, f"/api/traces/{TRACE}")["data"]
    assert by_search == by_id and by_id["traceID"] == TRACE
    assert {span["spanID"] for span in by_id["spans"]} == set(spans)
    for span in by_id["spans"]:
        otlp, _ = spans[span["spanID"]]
        assert span["operationName"] == otlp["name"]
        assert span["startTime"] == int(otlp["startTimeUnixNano"]) // 1000
        parents = [each["spanID"] for each in span["references"] if each["refType"] == "CHILD_OF"]
        assert parents == [otlp["parentSpanId"]]
    assert get(serving, "/api/dependencies")["data"] == [
        {"parent": "expertmesh-router", "child": "expertmesh-expert", "callCount": 2}
    ]
    assert not get(serving, "/api/traces", service="expertmesh-expert", minDuration="100s")["data"]
    status, _, text = read(serving, "/api/traces/77")
    assert status == 400 and json.loads(text)["errors"][0]["code"] == 400


def test_the_history_says_which_node_went(mesh, checkpoint):
    mesh.start(checkpoint.path, shards(1), "--tracing=off")
    (node,) = mesh.nodes

    def changes():
        return [text for each in get(mesh, "/api/v1/epochs")["epochs"] for text in each["changes"]]

    def lost():
        """What a loss within a second of the start adds to experts without a node is not seen as a change."""
        node.kill()
        mesh.watch(lambda topology: not topology.ready, "the node is gone")
        wait_until(
            lambda: any(text.startswith(f"node {node.address} is down") for text in changes()),
            "the history has it",
        )
        if any(text.endswith("experts without a node") for text in changes()):
            return True
        node.start()
        mesh.wait_ready()
        return False

    wait_until(lost, "the history has what that costs")


def test_without_tracing_it_says_how_to_turn_it_on(mesh, checkpoint):
    mesh.start(checkpoint.path, shards(1), "--tracing=off")
    for path in ("/api/v1/traces", f"/api/v1/traces/{TRACE}", "/api/services", "/api/traces/" + TRACE):
        status, _, text = read(mesh, path)
        assert status == 409 and "--tracing=off" in text, path
