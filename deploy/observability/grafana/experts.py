"""For who trains and serves mixtures of experts: how even is the load, on experts and on nodes, what is done about it,
and what that changes.

Layers are judged one by one and summed up afterwards: sums over layers hide that each has another favourite.
"""

from panels import THIRD, Query, bars, cells, graph, number

UID, TITLE = "expertmesh-experts", "Expertmesh: experts and balance"
ABOUT = "How even is the load of experts and nodes, what is done about it, and what does that change?"
VARIABLES = (("layer", "Layer", "expertmesh_router_layer_tokens_total"),)

BUSIEST = (
    "Only the busiest experts of each layer have series (--expert-metrics); `expertmesh load` and GET /load.json "
    "have all."
)
WORST_LAYERS = "The ten worst layers."
# A router that follows sees less than the one that decides.
DECIDES = "and on (job, instance) expertmesh_router_balance_authority{@} == 1"
BUSY = "and on (layer) sum by (layer) (rate(expertmesh_router_layer_tokens_total{@}[@])) > 0"
EXPERTS = (
    f"(1 / (1 + max by (layer) (expertmesh_router_load_max_violation{{@}} {DECIDES})) {BUSY})"
)
NODE_LAYER = "sum by (instance, layer) (rate(expertmesh_expert_layer_tokens_total{@}[@]))"
NODES = f"(avg by (layer) ({NODE_LAYER}) / (max by (layer) ({NODE_LAYER}) > 0))"
OF_LAYER = 'expertmesh_router_expert_tokens_total{@, layer="$layer"}'
LOW_IS_BAD = ((None, "red"), (0.5, "orange"), (0.8, "green"))


def _layer_gauge(metric, count=10):
    return f"topk({count}, max by (layer) ({metric}{{@}} {DECIDES}))"


def _even():
    for what, expression, note in (
        ("experts", EXPERTS, "Mean over largest load of a layer's experts"),
        ("nodes", NODES, "Mean over largest load of a layer's nodes"),
    ):
        for how, all_layers in (("avg", "mean of layers"), ("min", "worst layer")):
            yield number(
                f"Balance of {what}, {all_layers}",
                "percentunit",
                Query(f"{how}({expression})"),
                f"{note}, then the {all_layers}; 100 %: all get the same.",
                LOW_IS_BAD,
                idle="no load",
            )
    yield number(
        "Experts without tokens",
        "none",
        Query(f"sum(max by (layer) (expertmesh_router_dead_experts{{@}} {DECIDES}) {BUSY})"),
        "Within 10 s, of layers in use.",
    )
    yield number(
        "Tokens routed elsewhere",
        "percentunit",
        Query(
            "sum(rate(expertmesh_router_layer_changed_tokens_total{@}[@])) / "
            "(sum(rate(expertmesh_router_layer_tokens_total{@}[@])) > 0)"
        ),
        "Of all tokens; --quality-budget bounds it.",
        idle="no load",
    )
    yield cells(
        "Balance of experts by layer",
        "percentunit",
        Query(EXPERTS, "layer {{layer}}"),
        "Mean over largest load of the layer's experts; a red row is a layer with a favourite.",
        highest=1,
        low_is_bad=True,
    )
    yield cells(
        "Balance of nodes by layer",
        "percentunit",
        Query(NODES, "layer {{layer}}"),
        "Mean over largest load of the nodes that hold the layer; the fullest one is what a batch waits for.",
        highest=1,
        low_is_bad=True,
    )


def _experts():
    yield cells(
        "Share of layer $layer that its busiest experts get",
        "percentunit",
        Query(
            f"sum by (expert) (rate({OF_LAYER}[@])) / scalar("
            'sum(rate(expertmesh_router_layer_assignments_total{@, layer="$layer"}[@])) > 0)',
            "expert {{expert}}",
        ),
        BUSIEST,
    )
    yield bars(
        "Hottest experts of all layers",
        "percentunit",
        Query(
            "topk(12, sum by (layer, expert) (rate(expertmesh_router_expert_tokens_total{@}[@])) / on (layer) "
            "group_left () (sum by (layer) (rate(expertmesh_router_layer_assignments_total{@}[@])) > 0))",
            "layer {{layer}}, expert {{expert}}",
        ),
        f"Share of their layer's assignments. {BUSIEST}",
    )
    yield graph(
        "Largest load over the mean (MaxVio)",
        "none",
        Query(_layer_gauge("expertmesh_router_load_max_violation"), "layer {{layer}}"),
        note=f"0: all the same; 1: the largest is twice the mean. {WORST_LAYERS}",
        width=THIRD,
    )
    yield graph(
        "Within a batch (MaxVio)",
        "none",
        Query(_layer_gauge("expertmesh_router_load_batch_max_violation"), "layer {{layer}}"),
        note=f"Largest load over the mean, as nodes feel it. {WORST_LAYERS}",
        width=THIRD,
    )
    yield graph(
        "Entropy of the load",
        "none",
        Query(f"bottomk(10, max by (layer) (expertmesh_router_load_entropy{{@}} {DECIDES}))", "layer {{layer}}"),
        note=WORST_LAYERS,
        highest=1,
        width=THIRD,
    )


def _management():
    yield graph(
        "Does central management work?",
        "none",
        Query("min by (instance) (expertmesh_router_balance_alive{@})", "{{instance}}"),
        note="`expertmesh balance show` says why not.",
        highest=1,
        width=THIRD,
    )
    yield graph(
        "Bias: distance to the checkpoint's",
        "none",
        Query(_layer_gauge("expertmesh_router_bias_distance"), "layer {{layer}}"),
        note=f"It stays 0 while the balance is frozen. {WORST_LAYERS}",
        width=THIRD,
    )
    yield graph(
        "Bias: tokens that it sends elsewhere",
        "percentunit",
        Query(_layer_gauge("expertmesh_router_changed_routing_share"), "layer {{layer}}"),
        note=WORST_LAYERS,
        width=THIRD,
    )
    yield graph(
        "Version of bias and placement",
        "none",
        Query("max by (instance) (expertmesh_router_placement_epoch{@})", "{{instance}}"),
        note="A router that stays behind does not hear its authority.",
        width=THIRD,
    )
    yield graph(
        "Moves of copies",
        "none",
        Query("max by (phase) (expertmesh_router_placement_moving{@})", "{{phase}}"),
        note="1 for the phase that the move is in.",
        stacked=True,
        width=THIRD,
    )
    yield graph(
        "Assignments without room",
        "percentunit",
        Query(
            "sum(rate(expertmesh_router_dropped_assignments_total{@}[@])) / "
            "(sum(rate(expertmesh_router_layer_assignments_total{@}[@])) > 0)",
            "of assignments",
        ),
        Query(
            "sum(rate(expertmesh_router_dropped_gate_mass_total{@}[@])) / "
            "(sum(rate(expertmesh_router_tokens_total{@}[@])) > 0)",
            "gate scores per token",
        ),
        note="Only where the routing has a capacity.",
        width=THIRD,
    )


def _work():
    yield graph(
        "Assignments by node",
        "cps",
        Query("sum by (instance) (rate(expertmesh_expert_layer_tokens_total{@}[@]))", "{{instance}}"),
        note="All layers together: for work, not for balance.",
    )
    yield graph(
        "Nodes that a token goes to",
        "none",
        Query(
            "sum(rate(expertmesh_router_token_transfers_total{@}[@])) / "
            "(sum(rate(expertmesh_router_planned_tokens_total{@}[@])) > 0)",
            "planned",
        ),
        Query(
            "sum(rate(expertmesh_router_uniform_token_transfers_total{@}[@])) / "
            "(sum(rate(expertmesh_router_planned_tokens_total{@}[@])) > 0)",
            "with replicas taken at random",
        ),
        note="Fewer are fewer bytes.",
    )


def _losses():
    metrics = ("switch_loss", "gshard_loss", "megatron_loss", "sequence_loss", "importance_loss", "z_loss")
    yield graph(
        "Losses, mean of layers",
        "none",
        *(
            Query(f"avg(expertmesh_router_{name}{{@}} {DECIDES})", name.replace("_", " "))
            for name in metrics
        ),
        note="And others that training knows, of a sample of this router's rows.",
    )
    yield graph(
        "Losses of layer $layer",
        "none",
        *(
            Query(f'max(expertmesh_router_{name}{{@, layer="$layer"}} {DECIDES})', name.replace("_", " "))
            for name in metrics
        ),
        note="And others that training knows, of a sample of this router's rows.",
    )


ROWS = {
    "Is the load even?": _even,
    "Which experts?": _experts,
    "What is done about it, and what does it change?": _management,
    "What does it cost?": _work,
    "Losses of training": _losses,
}
# Closed at first: what is asked for seldom.
CLOSED = ("What does it cost?", "Losses of training")
