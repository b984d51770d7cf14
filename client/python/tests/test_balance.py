"""Load and balance, asked of the small router of conftest.py by Client and by AsyncClient."""

import asyncio

import numpy as np
import pytest

import expertmesh
from expertmesh import ForwardOptions, errors
from expertmesh.v1 import balance_pb2, control_pb2, router_pb2


def test_load_of_a_scope_and_a_window(router, ask):
    assert ask(lambda c: c.get_load()).window_ms == 0
    assert router.asked[-1] == control_pb2.GetLoadRequest()
    assert ask(lambda c: c.get_load(mesh=True, window=0.0105)).window_ms == 11
    assert router.asked[-1].scope == control_pb2.LOAD_SCOPE_MESH


@pytest.mark.parametrize("window", [-1, float("nan"), float("inf"), 2**32 / 1000])
def test_a_window_that_is_no_time(router, ask, window):
    with pytest.raises(errors.InvalidArgument, match="window is"):
        ask(lambda c: c.get_load(window=window))
    assert router.asked == []


def test_the_balance(router, ask):
    balance = ask(lambda c: c.balance())
    assert (balance.epoch, balance.summary.term) == (6, 3)


def test_a_change_has_what_is_given_and_nothing_else(router, ask):
    assert ask(lambda c: c.set_balance([3, 5], rule="sign", decay=0, paused=False)).epoch == 7
    policy = balance_pb2.BalancePolicy(rule=balance_pb2.BALANCE_RULE_SIGN, decay=0, paused=False)
    assert router.asked[-1] == balance_pb2.SetBalanceRequest(layers=[3, 5], policy=policy)
    changes = {"rate": 0.5, "clamp": 0.25, "quality_budget": 0.125, "step_tokens": 9}
    ask(lambda c: c.set_balance(**changes, reset_bias=True))
    policy = balance_pb2.BalancePolicy(**changes)
    assert router.asked[-1] == balance_pb2.SetBalanceRequest(policy=policy, reset_bias=True)


@pytest.mark.parametrize(
    "change,words",
    [
        ({"rule": "fair"}, "rule is 'fair'; use frozen, sign, proportional"),
        ({"rate": "fast"}, "fast|str"),
        ({"step_tokens": -1}, "-1"),
        ({"layers": [-1]}, "-1"),
    ],
)
def test_a_change_that_cannot_be_sent(router, ask, change, words):
    with pytest.raises(errors.InvalidArgument, match=words):
        ask(lambda c: c.set_balance(**change))
    assert router.asked == []


def test_a_bias_goes_both_ways(router, ask):
    bias = ask(lambda c: c.bias(4))
    assert (bias.epoch, bias.outline) == (4, "abc")
    assert ask(lambda c: c.set_bias(bias)).epoch == 8
    assert router.asked[-1].bias == bias
    ask(lambda c: c.set_bias({7: np.float64([0.5, 1]), 2: [3, 4]}))
    layers = router.asked[-1].bias.layers
    assert [(layer.layer, list(layer.values)) for layer in layers] == [(2, [3, 4]), (7, [0.5, 1])]
    with pytest.raises(errors.InvalidArgument, match=r"layer 2 has shape \(1, 2\)"):
        ask(lambda c: c.set_bias({2: [[3, 4]]}))
    with pytest.raises(errors.InvalidArgument, match="epoch is -1"):
        ask(lambda c: c.bias(-1))


def test_a_request_may_pin_the_bias_of_the_checkpoint(router, ask):
    x = np.zeros((1, 8), np.float32)
    ask(lambda c: c.forward(0, x))
    ask(lambda c: c.forward(0, x, ForwardOptions(checkpoint_bias=True)))
    assert [request.select_bias for request in router.requests] == [
        router_pb2.SELECT_BIAS_UNSPECIFIED,
        router_pb2.SELECT_BIAS_CHECKPOINT,
    ]


def test_a_watch_goes_on_and_does_not_tell_that_time_passes(router):
    with expertmesh.Client(router.address) as client:
        watch = client.watch_balance()
        assert [next(watch).epoch for _ in range(3)] == [1, 2, 3]

    async def run():
        async with expertmesh.AsyncClient(router.address) as client:
            watch = client.watch_balance()
            seen = [(await watch.__anext__()).epoch for _ in range(3)]
            await watch.aclose()
            return seen

    # The first watch made calls 1 to 3.
    assert asyncio.run(run()) == [4, 5, 6]
