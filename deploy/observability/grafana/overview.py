"""For who is called at night: does it serve, how fast, and what goes wrong."""

from panels import THIRD, Query, events, graph, mean, number, quantile, rows

UID, TITLE = "expertmesh-overview", "Expertmesh: overview"
ABOUT = "Does the mesh serve, how fast, and what goes wrong?"
VARIABLES = ()
# What a caller cannot help.
FAILED = 'code=~"UNAVAILABLE|DEADLINE_EXCEEDED|INTERNAL|UNKNOWN|DATA_LOSS|RESOURCE_EXHAUSTED|ABORTED"'
GOOD_TO_BAD = ((None, "green"), (1, "red"))


def _state():
    yield number(
        "Alerts that fire",
        "none",
        Query('count(ALERTS{alertname=~"Expertmesh.+", alertstate="firing"}) or vector(0)'),
        "Alerts of deploy/observability/prometheus/alert_rules.yaml; 0 also where these are not loaded.",
        GOOD_TO_BAD,
    )
    yield number(
        "Experts without a node",
        "none",
        Query("max(expertmesh_router_missing_experts{@})"),
        "Requests of their layers fail.",
        GOOD_TO_BAD,
    )
    yield number(
        "Nodes not in use",
        "none",
        Query('max(sum by (job, instance) (expertmesh_router_nodes{@, state!="up"}))'),
        "Those that are not up, as the router sees it that misses most.",
        ((None, "green"), (1, "orange")),
    )
    yield number(
        "Requests that failed",
        "percentunit",
        Query(
            f"(sum(rate(expertmesh_router_requests_total{{@, {FAILED}}}[@])) or vector(0)) / "
            "(sum(rate(expertmesh_router_requests_total{@}[@])) > 0)"
        ),
        "Share of those that failed and where the caller is not to blame.",
        ((None, "green"), (0.001, "orange"), (0.01, "red")),
        idle="no load",
    )
    yield number(
        "Latency, p99",
        "s",
        quantile(0.99, "expertmesh_router_request_duration_seconds"),
        "99 of 100 requests are faster.",
        idle="no load",
    )
    yield number("Tokens", "cps", Query("sum(rate(expertmesh_router_tokens_total{@}[@]))"), "All routers together.")


def _load():
    yield graph(
        "Requests by status",
        "reqps",
        Query("sum by (code) (rate(expertmesh_router_requests_total{@}[@]))", "{{code}}"),
        note="RESOURCE_EXHAUSTED is a refusal: the mesh is full.",
        stacked=True,
        width=THIRD,
    )
    yield graph(
        "Latency of requests",
        "s",
        *(
            quantile(share, "expertmesh_router_request_duration_seconds", exemplars=True)
            for share in (0.5, 0.99, 0.999)
        ),
        note="A point is a request that was traced: it opens its trace.",
        width=THIRD,
    )
    yield graph(
        "Where the time goes",
        "s",
        mean("expertmesh_router_queue_duration_seconds", legend="queue"),
        mean("expertmesh_router_stage_duration_seconds", "stage", legend="{{stage}}"),
        note="Means, stacked: then the stages of a batch (route, plan, experts, combine).",
        stacked=True,
        width=THIRD,
    )
    yield graph(
        "Tokens by router",
        "cps",
        Query("sum by (instance) (rate(expertmesh_router_tokens_total{@}[@]))", "{{instance}}"),
        note="Callers that keep to one router show here.",
    )
    yield graph(
        "Tokens in flight",
        "none",
        Query("sum by (instance) (expertmesh_router_tokens_in_flight{@})", "{{instance}}"),
        note="A router that fills up refuses.",
    )


def _wrong():
    yield graph(
        "Parts of batches that another node got",
        "cps",
        Query("sum by (reason) (rate(expertmesh_router_retries_total{@}[@]))", "{{reason}}"),
        note="No request fails for it; each is later.",
    )
    yield graph(
        "Faults by node",
        "none",
        events("expertmesh_router_node_faults_total", "node, fault", "{{node}} {{fault}}"),
        note="In each interval; nonfinite, checksum and unreadable are wrong, late and silent are overdue.",
    )


def _runs():
    yield rows(
        "What runs",
        Query("expertmesh_build_info{@}"),
        ["job", "instance", "process", "version", "commit", "build_type"],
        "More than one version: an update is under way, or stopped in the middle.",
    )
    yield graph(
        "Memory",
        "bytes",
        Query("sum by (instance) (expertmesh_process_resident_bytes{@})", "{{instance}}"),
    )
    yield graph(
        "Traces: spans that are lost",
        "cps",
        Query("sum by (reason) (rate(expertmesh_router_trace_dropped_spans_total{@}[@]))", "{{reason}}"),
        note="On their way to the collector; requests do not wait for it.",
    )


ROWS = {
    "Is it well?": _state,
    "Load and latency": _load,
    "What goes wrong": _wrong,
    "What runs": _runs,
}
# Closed at first: what is asked for seldom.
CLOSED = ("What runs",)
