"""What the bits of an output depend on: without --strict on the placement too, with it on neither placement nor
replica; and never on what else is under way."""

import concurrent.futures
import contextlib
import itertools
import threading

import ml_dtypes
import numpy as np
import pytest

from arrays import assert_different, assert_same_bits
from expertmesh import ForwardOptions
from expertmesh.v1 import control_pb2
from mesh import Mesh, entry, hidden_states, shards

LAYER = 1
DTYPES = {"F32": np.float32, "BF16": ml_dtypes.bfloat16}
# Requests of this many tokens: alone, few, many.
SIZES = (1, 7, 64)
LAYOUTS = {
    "one node": shards(1),
    "one node, two threads": shards(1, "--threads", "2"),
    "two nodes": shards(2),
    "three nodes": shards(3),
    "four nodes": shards(4),
    "four nodes, two replicas": shards(4, "--replicas", "2"),
    "by hand, answers of few rows": [
        ["--experts", "0-9,14", "--max-batch-rows", "5"],
        ["--experts", "5,8-15"],
    ],
}


@pytest.fixture(params=DTYPES)
def model(request, checkpoints):
    # Six of sixteen experts and a shared one: sums whose order shows.
    return checkpoints("qwen2_moe", dtype=request.param, experts=16, top_k=6, d_model=96)


def tokens_of(model, count, seed):
    return hidden_states(count, model.d_model, seed).astype(model.dtype)


def forward(mesh, x):
    return mesh.client.forward(LAYER, x, ForwardOptions(output_dtype="float32"))


def outputs(mesh, model):
    return [forward(mesh, tokens_of(model, size, seed=size)).output for size in SIZES]


def check_same(found, expected, label):
    """What `outputs` returned, twice."""
    __tracebackhide__ = True
    for size, a, b in zip(SIZES, found, expected, strict=True):
        assert_same_bits(a, b, f"{label}, {size} tokens")


@contextlib.contextmanager
def load(mesh, model, callers=5):
    """Callers that send other tokens until the block ends; their answers are ignored."""
    stop = threading.Event()

    def call(caller):
        turn = 0
        while not stop.is_set():
            turn += 1
            forward(mesh, tokens_of(model, 1 + (7 * caller + turn) % 23, seed=1000 + turn % 9))

    with concurrent.futures.ThreadPoolExecutor(callers) as pool:
        running = [pool.submit(call, caller) for caller in range(callers)]
        try:
            yield
        finally:
            stop.set()
    for each in running:
        each.result()


def test_a_token_has_its_bits_whatever_else_is_under_way(mesh, model):
    mesh.start(model.path, shards(3))
    token, batch, other = (tokens_of(model, count, seed=count) for count in (1, 64, 9))
    alone = forward(mesh, token).output
    merged = rounds = 0
    with load(mesh, model):
        # A hundred times, and so often that it really shared batches with the load.
        while rounds < 100 or (merged < 20 and rounds < 5000):
            for others in (token[:0], batch[:63], other):
                place = rounds % (len(others) + 1)
                x = np.concatenate([others[:place], token, others[place:]])
                result = forward(mesh, x)
                same = result.output[place : place + 1]
                assert_same_bits(same, alone, f"round {rounds}, token {place} of {len(x)}")
                merged += result.timing.batch_tokens > len(x)
            rounds += 1
    assert merged >= 20


def outputs_by_layout(folder, model, layouts, *router_flags):
    found = {}
    for number, layout in enumerate(layouts):
        (folder / str(number)).mkdir()
        with Mesh(folder / str(number)) as mesh:
            mesh.start(model.path, LAYOUTS[layout], *router_flags)
            found[layout] = outputs(mesh, model)
    return found


def test_strict_bits_do_not_depend_on_placement_or_replicas(tmp_path, model):
    found = outputs_by_layout(tmp_path, model, LAYOUTS, "--strict")
    for layout, bits in found.items():
        check_same(bits, found["one node"], layout)


def test_without_strict_the_placement_shows(tmp_path, model):
    layouts = ["one node", "two nodes", "three nodes"]
    found = outputs_by_layout(tmp_path, model, layouts)
    # The last request is of 64 tokens; were it the same, nothing above would be shown.
    for a, b in itertools.combinations(layouts, 2):
        assert_different(found[a][-1], found[b][-1], f"{a} and {b}")


def test_strict_bits_of_slices_do_not_depend_on_placement(tmp_path, checkpoints):
    model = checkpoints("qwen2_moe", experts=16, top_k=6, d_model=96)
    halves = [[*shard, "--slice", f"{i}/2"] for i in range(2) for shard in shards(2)]
    found = []
    for number, layout in enumerate(
        ([["--slice", "0/2"], ["--slice", "1/2"]], [["--slice", "1/2"], ["--slice", "0/2"]], halves)
    ):
        (tmp_path / str(number)).mkdir()
        with Mesh(tmp_path / str(number)) as mesh:
            mesh.start(model.path, layout, "--strict")
            found.append(outputs(mesh, model))
    for other in found[1:]:
        check_same(other, found[0], "slices elsewhere")


def test_strict_bits_outlive_a_node(mesh, model):
    mesh.start(model.path, shards(4, "--replicas", "2"), "--strict")
    expected = outputs(mesh, model)
    x = tokens_of(model, SIZES[-1], seed=SIZES[-1])
    victim = mesh.nodes[2]

    def requests():
        for i in range(200):
            if i == 60:
                victim.kill()
            yield LAYER, x

    # Some of these are on their way when the node dies, and are planned again.
    answers = mesh.client.forward_many(
        requests(), ForwardOptions(output_dtype="float32"), max_in_flight=16
    )
    for answer in answers:
        assert_same_bits(answer.unwrap().output, expected[-1], f"request {answer.index}")
    topology = mesh.watch(
        lambda seen: entry(seen, victim).link == control_pb2.NODE_LINK_DOWN, "the node is missed"
    )
    assert topology.ready
    check_same(outputs(mesh, model), expected, "after the loss")
