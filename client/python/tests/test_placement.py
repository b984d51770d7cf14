"""Placement, asked of the small router of conftest.py by Client and by AsyncClient."""

import asyncio

import grpc
import pytest

import expertmesh
from conftest import Refused
from expertmesh import errors
from expertmesh.v1 import placement_pb2


def test_the_placement_and_what_is_planned(router, ask):
    assert ask(lambda c: c.placement()).epoch == 6
    assert router.asked[-1] == placement_pb2.GetPlacementRequest()
    proposal = ask(lambda c: c.plan_placement(min_copies=2, hysteresis=0))
    assert proposal.reason == "planned"
    policy = placement_pb2.PlacementPolicy(min_copies=2, hysteresis=0)
    assert router.asked[-1] == placement_pb2.PlanPlacementRequest(policy=policy)


def test_a_change_has_what_is_given_and_nothing_else(router, ask):
    assert ask(lambda c: c.set_placement(automatic=False, byte_budget=0)).epoch == 7
    policy = placement_pb2.PlacementPolicy(automatic=False, byte_budget=0)
    assert router.asked[-1] == placement_pb2.SetPlacementRequest(policy=policy)


@pytest.mark.parametrize(
    "policy,words",
    [({"copies": 2}, "copies.*min_copies"), ({"min_copies": -1}, "-1"), ({"hysteresis": "x"}, "x|str")],
)
def test_a_policy_that_cannot_be_sent(router, ask, policy, words):
    for method in ("set_placement", "plan_placement"):
        with pytest.raises(errors.InvalidArgument, match=words):
            ask(lambda c, method=method: getattr(c, method)(**policy))
    assert router.asked == []


def test_a_plan_is_applied_and_undone(router, ask):
    plan = placement_pb2.PlacementPlan(nodes=["a"])
    plan.layers.add(layer=1, copies_per_expert=[1], copy_nodes=[0], copy_shares=[1])
    assert ask(lambda c: c.apply_placement(plan)).epoch == 8
    assert router.asked[-1] == placement_pb2.ApplyPlacementRequest(plan=plan)
    ask(lambda c: c.apply_placement())
    assert not router.asked[-1].HasField("plan")
    ask(lambda c: c.apply_placement(abort=True))
    assert router.asked[-1] == placement_pb2.ApplyPlacementRequest(abort=True)


LOST = Refused(grpc.StatusCode.UNAVAILABLE, "Socket closed")
UNDER_WAY = Refused(grpc.StatusCode.FAILED_PRECONDITION, "a move is under way")
STOPPING = Refused(grpc.StatusCode.UNAVAILABLE, "stopping", "ROUTER_STOPPING")


@pytest.mark.parametrize("abort", [False, True])
def test_a_move_is_not_asked_for_again_when_it_may_have_begun(router, ask, abort):
    router.losses = [LOST, UNDER_WAY]
    with pytest.raises(errors.Unavailable, match="not known.*Socket closed"):
        ask(lambda c: c.apply_placement(abort=abort))
    assert len(router.asked) == 1
    # A router that says that it stops has not begun.
    router.losses = [STOPPING]
    assert ask(lambda c: c.apply_placement(abort=abort)).epoch == 8
    assert len(router.asked) == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.set_placement(automatic=True),
        lambda c: c.set_balance(paused=True),
        lambda c: c.set_bias({1: [0.5, 0]}),
    ],
)
def test_what_sets_something_is_sent_again(router, ask, change):
    router.losses = [LOST]
    assert ask(change).epoch > 6
    assert len(router.asked) == 2 and router.asked[0] == router.asked[1]


def test_a_watch_goes_on_and_does_not_tell_that_time_passes(router):
    with expertmesh.Client(router.address) as client:
        watch = client.watch_placement()
        assert [next(watch).epoch for _ in range(3)] == [1, 2, 3]

    async def run():
        async with expertmesh.AsyncClient(router.address) as client:
            watch = client.watch_placement()
            seen = [(await watch.__anext__()).epoch for _ in range(3)]
            await watch.aclose()
            return seen

    # The first watch made calls 1 to 3.
    assert asyncio.run(run()) == [4, 5, 6]
