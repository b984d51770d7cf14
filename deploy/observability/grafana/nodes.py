"""Which node is full, slow, wrong or gone?"""

from panels import THIRD, Query, cells, events, graph, mean, quantile

UID, TITLE = "expertmesh-nodes", "Expertmesh: nodes"
ABOUT = (
    "Which node is full, slow, wrong or gone? A node is an address for the router, and an instance for its own "
    "metrics."
)
VARIABLES = ()


def _there():
    yield graph(
        "Nodes by state of their link",
        "none",
        Query("max by (state) (expertmesh_router_nodes{@})", "{{state}}"),
        note="As the router sees it that has most in the state.",
        stacked=True,
        width=THIRD,
    )
    yield graph(
        "Nodes by their own state",
        "none",
        Query("sum by (state) (expertmesh_expert_state{@})", "{{state}}"),
        stacked=True,
        width=THIRD,
    )
    yield graph(
        "Experts without a node",
        "none",
        Query("max by (instance) (expertmesh_router_missing_experts{@})", "{{instance}}"),
        width=THIRD,
    )


def _full():
    yield graph(
        "Rows that wait",
        "none",
        Query("sum by (instance) (expertmesh_expert_queue_rows{@})", "{{instance}}"),
        width=THIRD,
    )
    yield graph(
        "Share of the time that is computed",
        "percentunit",
        Query("sum by (instance) (rate(expertmesh_expert_forward_duration_seconds_sum{@}[@]))", "{{instance}}"),
        note="Per second; several batches at once count several times.",
        width=THIRD,
    )
    yield graph(
        "Rows computed together",
        "none",
        mean("expertmesh_expert_batch_rows", "instance", legend="{{instance}}"),
        note="Mean; more rows are less time for each.",
        width=THIRD,
    )
    yield graph(
        "Calls of nodes, p99",
        "s",
        quantile(0.99, "expertmesh_router_node_call_duration_seconds", "node", exemplars=True, legend="{{node}}"),
    )
    yield cells(
        "Assignments by node",
        "cps",
        Query("sum by (instance) (rate(expertmesh_expert_layer_tokens_total{@}[@]))", "{{instance}}"),
        "All layers together.",
    )


def _wrong():
    yield graph(
        "Faults",
        "none",
        events("expertmesh_router_node_faults_total", "node, fault", "{{node}} {{fault}}"),
        note="In each interval; nonfinite, checksum and unreadable are wrong, late and silent are overdue.",
        width=THIRD,
    )
    yield graph(
        "Ejections",
        "none",
        events("expertmesh_router_node_ejections_total", "node", "{{node}}"),
        note="In each interval.",
        width=THIRD,
    )
    yield graph(
        "Damaged experts",
        "none",
        Query("max by (node) (expertmesh_router_damaged_experts{@})", "{{node}}"),
        width=THIRD,
    )
    yield graph(
        "Cross-checks",
        "cps",
        Query("sum by (result) (rate(expertmesh_router_cross_checks_total{@}[@]))", "{{result}}"),
        note="None without replicas.",
        width=THIRD,
    )
    yield graph(
        "Refused by nodes",
        "none",
        events("expertmesh_expert_rejected_total", "instance, reason", "{{instance}} {{reason}}"),
        note="In each interval; another node is asked.",
        width=THIRD,
    )
    yield graph(
        "Connections refused",
        "cps",
        Query(
            "topk(10, sum by (instance, reason) (rate(expertmesh_process_connections_refused_total{@}[@])))",
            "{{instance}} {{reason}}",
        ),
        width=THIRD,
    )


def _links():
    yield graph(
        "Bytes to and from nodes",
        "Bps",
        Query(
            "sum by (node, direction) (rate(expertmesh_router_node_bytes_total{@}[@]))", "{{node}} {{direction}}"
        ),
        width=THIRD,
    )
    yield graph(
        "Bytes for each token",
        "bytes",
        Query(
            "sum by (direction) (rate(expertmesh_router_node_bytes_total{@}[@])) / ignoring (direction) "
            "group_left () (sum(rate(expertmesh_router_planned_tokens_total{@}[@])) > 0)",
            "{{direction}}",
        ),
        note="Over the tokens whose assignments were given to nodes.",
        width=THIRD,
    )
    yield graph(
        "What links lose, p99",
        "percentunit",
        quantile(0.99, "expertmesh_router_wire_relative_error", "direction", legend="{{direction}}"),
        quantile(0.99, "expertmesh_expert_wire_relative_error", "direction", legend="{{direction}}"),
        note="Only where links are narrower (--wire-hidden-states, --wire-partials).",
        width=THIRD,
    )


def _holds():
    yield graph(
        "Weights held",
        "bytes",
        Query("sum by (instance) (expertmesh_expert_weights_loaded_bytes{@})", "{{instance}}"),
        stacked=True,
        width=THIRD,
    )
    yield graph(
        "Memory",
        "bytes",
        Query("sum by (instance) (expertmesh_process_resident_bytes{@})", "{{instance}}"),
        width=THIRD,
    )
    yield graph(
        "Requests and answers held",
        "bytes",
        Query("sum by (instance) (expertmesh_process_buffered_bytes{@})", "{{instance}}"),
        width=THIRD,
    )


def _memory():
    yield graph(
        "Experts found in memory",
        "percentunit",
        Query(
            "sum by (instance) (rate(expertmesh_expert_cache_hits_total{@}[@])) / (sum by (instance) "
            "(rate(expertmesh_expert_cache_hits_total{@}[@])) + sum by (instance) "
            "(rate(expertmesh_expert_cache_misses_total{@}[@])))",
            "{{instance}}",
        ),
        note="As a share of all that batches needed.",
        width=THIRD,
    )
    yield graph(
        "Batches wait for experts, p99",
        "s",
        quantile(0.99, "expertmesh_expert_cache_stall_seconds", "instance", legend="{{instance}}"),
        width=THIRD,
    )
    yield graph(
        "Weights packed again",
        "Bps",
        Query("sum by (instance) (rate(expertmesh_expert_cache_loaded_bytes_total{@}[@]))", "{{instance}}"),
        width=THIRD,
    )
    yield graph(
        "Packed weights in memory, of those allowed",
        "percentunit",
        Query(
            "sum by (instance) (expertmesh_expert_cache_resident_bytes{@}) / sum by (instance) "
            "(expertmesh_expert_cache_limit_bytes{@})",
            "{{instance}}",
        ),
        width=THIRD,
    )


ROWS = {
    "Are they there?": _there,
    "Are they full, or slow?": _full,
    "Are they wrong?": _wrong,
    "What goes over their links?": _links,
    "What do they hold?": _holds,
    "Is their memory enough for it (--memory)?": _memory,
}
# Closed at first: what is asked for seldom.
CLOSED = ("What do they hold?", "Is their memory enough for it (--memory)?")
