"""Why was this token late? From the whole request to the stage, the node and the trace."""

from panels import THIRD, Query, buckets, graph, mean, quantile

UID, TITLE = "expertmesh-latency", "Expertmesh: latency by stage"
ABOUT = "Why was this token late? Points are traces."
VARIABLES = ()

REQUEST = "expertmesh_router_request_duration_seconds"
QUEUE = "expertmesh_router_queue_duration_seconds"
STAGE = "expertmesh_router_stage_duration_seconds"
CALL = "expertmesh_router_node_call_duration_seconds"
NODE_QUEUE = "expertmesh_expert_queue_duration_seconds"
FORWARD = "expertmesh_expert_forward_duration_seconds"


def _requests():
    yield graph(
        "Latency of requests",
        "s",
        *(quantile(share, REQUEST, exemplars=True) for share in (0.5, 0.9, 0.99, 0.999)),
        note="A point opens its trace.",
    )
    yield buckets("Requests by latency", "s", REQUEST, "Two bands: two kinds of requests, or a node that is slow.")


def _stages():
    yield graph(
        "Where the time goes",
        "s",
        mean(QUEUE, legend="queue"),
        mean(STAGE, "stage", legend="{{stage}}"),
        note="Means, stacked; then the stages of a batch: route, plan, experts, combine.",
        stacked=True,
        width=THIRD,
    )
    yield graph(
        "Stages, p99",
        "s",
        quantile(0.99, STAGE, "stage", exemplars=True, legend="{{stage}}"),
        quantile(0.99, QUEUE, legend="queue"),
        width=THIRD,
    )
    yield graph(
        "Stall of fail-overs",
        "s",
        quantile(0.5, "expertmesh_router_failover_stall_seconds"),
        quantile(0.99, "expertmesh_router_failover_stall_seconds"),
        note="No line: no fail-over.",
        width=THIRD,
    )


def _nodes():
    yield graph(
        "Calls of nodes, p99",
        "s",
        quantile(0.99, CALL, "node", exemplars=True, legend="{{node}}"),
        note="As the router sees it: the network and the node. One line above the rest is the cause.",
        width=THIRD,
    )
    yield graph(
        "On nodes: waiting, p99",
        "s",
        quantile(0.99, NODE_QUEUE, "instance", legend="{{instance}}"),
        note="The node has more than it can do.",
        width=THIRD,
    )
    yield graph(
        "On nodes: computing, p99",
        "s",
        quantile(0.99, FORWARD, "instance", legend="{{instance}}"),
        width=THIRD,
    )
    parts = [mean(metric).promql for metric in (CALL, NODE_QUEUE, FORWARD)]
    yield graph(
        "Between router and nodes",
        "s",
        Query(f"clamp_min({parts[0]} - {parts[1]} - {parts[2]}, 0)", "network and both ends of it"),
        note="Means: what is left of a call without the node's queue and computation.",
        width=THIRD,
    )
    yield graph(
        "Time that nodes computed, by layer",
        "s",
        Query(
            "topk(10, sum by (layer) (rate(expertmesh_router_layer_node_seconds_total{@}[@])) / "
            "(sum by (layer) (rate(expertmesh_router_layer_tokens_total{@}[@])) > 0))",
            "layer {{layer}}",
        ),
        note="For each token; the ten slowest layers.",
        width=THIRD,
    )
    yield graph(
        "Calls by method, p99",
        "s",
        Query(
            "histogram_quantile(0.99, sum by (le, grpc_method) (rate(grpc_server_handling_seconds_bucket"
            '{@, grpc_type="unary", grpc_service="expertmesh.v1.Router"}[@])))',
            "{{grpc_method}}",
        ),
        note="With reading and writing the messages.",
        width=THIRD,
    )


def _batches():
    yield graph(
        "Tokens of a batch",
        "none",
        mean("expertmesh_router_batch_tokens", legend="mean"),
        quantile(0.99, "expertmesh_router_batch_tokens"),
        width=THIRD,
    )
    yield graph(
        "Requests of a batch",
        "none",
        mean("expertmesh_router_batch_requests", legend="mean"),
        quantile(0.99, "expertmesh_router_batch_requests"),
        note="Above 1, weights are read once for several callers.",
        width=THIRD,
    )
    yield graph(
        "Nodes of a batch",
        "none",
        mean("expertmesh_router_batch_nodes", legend="mean"),
        quantile(0.99, "expertmesh_router_batch_nodes"),
        note="A batch waits for the slowest of them.",
        width=THIRD,
    )


ROWS = {
    "How long do requests take?": _requests,
    "Which stage?": _stages,
    "Which node, and what there?": _nodes,
    "Which batches?": _batches,
}
CLOSED = ()
