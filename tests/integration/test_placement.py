"""Copies of experts that the router plans and moves under load: nothing is lost, whichever process is killed.

EXPERTMESH_REPLACEMENT_FIGURES=1 (test_replacement.py) measures how late answers are meanwhile.
"""

import contextlib

import numpy as np
import pytest

import expertmesh
from expertmesh import ForwardOptions
from expertmesh.v1 import placement_pb2
from mesh import PATIENCE, hidden_states, shards, wait_until
from replacement import TimedLoad

FAST = "--balance-interval=20ms"
# Slow enough that a kill falls into the middle of a move.
SLOW = "--move-bytes-per-second=65536"


def await_phase(client, *phases):
    wait_until(
        lambda: client.placement().moves.phase in phases, f"the move is {' or '.join(phases)}"
    )


def held(topology):
    """node_id -> set of (layer, expert)."""
    return {
        node.description.node_id: {
            (hosted.layer, expert)
            for hosted in node.description.hosted
            for expert in hosted.experts
        }
        for node in topology.nodes
    }


def planned(plan):
    """The same, as a plan wants it."""
    nodes = {node: set() for node in plan.nodes}
    for layer in plan.layers:
        copies = iter(layer.copy_nodes)
        for expert, count in enumerate(layer.copies_per_expert):
            for _ in range(count):
                nodes[plan.nodes[next(copies)]].add((layer.layer, expert))
    return nodes


def third_goes_on(topology, experts):
    """Every third expert of every node goes on to the next node."""
    nodes = sorted(held(topology))
    where = {
        copy: nodes.index(node) for node, copies in held(topology).items() for copy in copies
    }
    plan = placement_pb2.PlacementPlan(nodes=nodes)
    for layer in sorted({layer for layer, _ in where}):
        written = plan.layers.add(layer=layer)
        for expert in range(experts):
            node = where[(layer, expert)]
            written.copies_per_expert.append(1)
            written.copy_nodes.append((node + 1) % len(nodes) if expert % 3 == 0 else node)
            written.copy_shares.append(1)
    return plan


def computed(client):
    """node_id -> assignments that it has computed."""
    return {
        node.description.node_id: node.computed_assignments for node in client.topology().nodes
    }


@pytest.fixture
def serving(mesh, checkpoint, tmp_path):
    """Four nodes and a router that keeps its state, and moves slowly."""
    mesh.start(checkpoint.path, shards(4), FAST, SLOW, "--state-dir", tmp_path / "state")
    return mesh


def await_held(client, plan):
    wanted = planned(plan)

    def wrong():
        """node_id -> what it holds and should not, and the reverse."""
        return {
            node: copies ^ wanted[node]
            for node, copies in held(client.topology()).items()
            if copies != wanted[node]
        }

    try:
        wait_until(lambda: not wrong(), "nodes hold what the plan says")
    except AssertionError:
        raise AssertionError(f"{wrong()}, and {client.placement().moves}") from None


def test_a_third_of_all_experts_moves_and_nothing_is_lost_or_doubled(serving, checkpoint):
    client = serving.client
    before = {load.layer: load.tokens for load in serving.client.get_load().layers}
    plan = third_goes_on(serving.client.topology(), checkpoint.moe.experts)
    with TimedLoad(serving, checkpoint.d_model, checkpoint.moe_layers) as load:
        wait_until(lambda: len(load.answers) > 50 or load.errors, "answers")
        load.moving = True
        epoch = client.apply_placement(plan).epoch
        await_held(serving.client, plan)
        await_phase(client, "idle")
        load.moving = False
        enough = len(load.answers) + 50
        wait_until(lambda: len(load.answers) > enough or load.errors, "answers after the move")
    assert load.errors == []
    print(load.figures())
    state = client.placement()
    assert state.epoch > epoch
    assert state.moves.moves_completed == 1 and state.moves.moves_failed == 0
    assert state.plan == plan
    # Every token was routed once: four a request, those that said what is right included.
    requests = len(load.answers) + load.asked_first
    after = {load.layer: load.tokens for load in serving.client.get_load().layers}
    assert sum(after.values()) - sum(before.values()) == 4 * requests
    assert serving.router.metric("expertmesh_router_sum_checks_total", result="right") > 0


def test_a_plan_of_the_planner_levels_the_nodes(mesh, checkpoint):
    mesh.start(checkpoint.path, shards(4, "--memory-limit-bytes", 10**8), FAST)
    client = mesh.client
    for layer in checkpoint.moe_layers:
        mesh.client.forward(layer, hidden_states(2000, checkpoint.d_model, 3))
    wait_until(
        lambda: [load.tokens for load in client.get_load(mesh=True, window=10).layers]
        == [2000] * len(checkpoint.moe_layers),
        "load is looked at",
    )
    proposal = client.plan_placement(min_tokens=1, hysteresis=0)
    assert proposal.apply and proposal.move_count > 0, proposal.reason
    assert proposal.load_seconds > 0
    assert "fullest node" in proposal.moves[0]
    for layer in proposal.layers:
        assert layer.lower_bound <= layer.fullest_over_mean <= layer.present_fullest_over_mean
        assert layer.fullest_over_mean <= 1.005 * layer.lower_bound
    client.apply_placement(proposal.plan)
    await_held(mesh.client, proposal.plan)
    await_phase(client, "idle")
    # The same load again: nodes get what the shares give them, by their own counts.
    begun = computed(client)
    expected = dict.fromkeys(proposal.plan.nodes, 0.0)
    for layer in proposal.plan.layers:
        x = hidden_states(2000, checkpoint.d_model, 3)
        ids = client.forward(layer.layer, x, ForwardOptions(return_routing=True)).expert_ids
        load = np.repeat(
            np.bincount(ids.reshape(-1), minlength=checkpoint.moe.experts),
            layer.copies_per_expert,
        )
        for copy, node in enumerate(layer.copy_nodes):
            expected[proposal.plan.nodes[node]] += load[copy] * layer.copy_shares[copy]
    for node, work in computed(client).items():
        assert work - begun[node] == pytest.approx(
            expected[node], abs=0.1 * np.mean(list(expected.values()))
        )


def test_a_target_that_is_killed_in_the_middle_undoes_the_move(serving, checkpoint):
    client = serving.client
    topology = serving.client.topology()
    before = held(topology)
    plan = third_goes_on(topology, checkpoint.moe.experts)
    client.apply_placement(plan)
    await_phase(client, "loading")
    victim = serving.nodes[1]
    victim.kill()
    victim.start()
    # Brought back by the move itself, or undone: either way no expert is missing, and the nodes
    # hold what the plan in force says.
    await_phase(client, "idle")
    serving.wait_ready()
    state = client.placement()
    wanted = planned(state.plan) if state.HasField("plan") else before
    wait_until(lambda: held(serving.client.topology()) == wanted, "nodes hold what is in force")
    x = hidden_states(16, checkpoint.d_model, 5)
    for layer in checkpoint.moe_layers:
        serving.client.forward(layer, x)


def test_an_authority_that_is_killed_in_the_middle_goes_on_or_leaves_things_whole(
    serving, checkpoint, tmp_path
):
    first = serving.router
    second = serving.start_router(checkpoint.path, FAST, "--follow", first.address)
    with contextlib.ExitStack() as stack:
        follower = stack.enter_context(expertmesh.Client(second.address, timeout=PATIENCE))
        authority = stack.enter_context(expertmesh.Client(first.address, timeout=PATIENCE))
        wait_until(lambda: follower.balance().summary.alive, "the follower has heard")
        plan = third_goes_on(authority.topology(), checkpoint.moe.experts)
        authority.apply_placement(plan)
        await_phase(authority, "loading")
        first.kill()
        # The follower serves on.
        x = hidden_states(8, checkpoint.d_model, 6)
        for layer in checkpoint.moe_layers:
            follower.forward(layer, x)
        first.start()
        wait_until(lambda: authority.topology().ready, "the authority is back")
        wait_until(lambda: follower.balance().summary.alive, "it is followed again")
        # It does what it is told again, and both routers see the same.
        wait_until(lambda: authority.placement().moves.phase == "idle", "it is at rest")
        authority.apply_placement(plan)
        await_held(authority, plan)
        await_phase(authority, "idle")
        epoch = authority.topology().epoch
        wait_until(lambda: follower.topology().epoch >= epoch, "the plan is followed")
        assert follower.placement().plan == plan
        for layer in checkpoint.moe_layers:
            np.testing.assert_array_equal(
                follower.forward(layer, x).output, authority.forward(layer, x).output
            )


def test_a_follower_that_is_killed_does_not_hold_up_the_move_for_ever(serving, checkpoint):
    first = serving.router
    second = serving.start_router(checkpoint.path, FAST, "--follow", first.address)
    with expertmesh.Client(first.address, timeout=PATIENCE) as authority:
        wait_until(lambda: len(authority.balance().routers) == 2, "the follower has reported")
        plan = third_goes_on(authority.topology(), checkpoint.moe.experts)
        authority.apply_placement(plan)
        await_phase(authority, "loading", "switching")
        second.kill()
        second.start()  # As a supervisor would: it follows, under another id.
        await_held(authority, plan)
        await_phase(authority, "idle")
        assert authority.placement().moves.moves_completed == 1


def test_impossible_plans_are_refused_and_nothing_moves(mesh, checkpoint):
    limit = 400_000
    mesh.start(checkpoint.path, shards(4, "--memory-limit-bytes", limit), FAST)
    client = mesh.client
    before = held(mesh.client.topology())
    good = third_goes_on(mesh.client.topology(), checkpoint.moe.experts)

    def refused(change, text):
        plan = placement_pb2.PlacementPlan()
        plan.CopyFrom(good)
        change(plan)
        with pytest.raises(expertmesh.ExpertmeshError, match=text):
            mesh.client.apply_placement(plan)

    refused(lambda plan: plan.layers[0].copy_nodes.__setitem__(0, 9), "on node 9 of 4")
    refused(lambda plan: setattr(plan.layers[0], "layer", 99), "layer 99 is not a MoE layer")

    def everything_on_one(plan):
        for layer in plan.layers:
            layer.copy_nodes[:] = [0] * len(layer.copy_nodes)

    refused(everything_on_one, "memory|room|limit")
    assert held(mesh.client.topology()) == before
    assert client.placement().moves.phase == "idle"
