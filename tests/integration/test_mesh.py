"""However experts are spread over nodes, the mesh gives what the model's formulas give."""

import concurrent.futures

import ml_dtypes
import numpy as np
import pytest

import reference
from arrays import assert_close, assert_rows_close, assert_same, assert_same_bits
from expertmesh import ForwardOptions
from mesh import Mesh, hidden_states, shards

FAMILIES = ["mixtral", "qwen3_moe", "deepseek_v3"]
LAYOUTS = {
    "one node": shards(1),
    "two nodes": shards(2),
    "four nodes": shards(4),
    "seven nodes, uneven": shards(7),
    "uneven by hand": [["--experts", "0-6"], ["--experts", "7,9,11"], ["--experts", "8,10"]],
    "replicas": shards(3, "--replicas", "2"),
    "half of each expert": [["--slice", "0/2"], ["--slice", "1/2"]],
    "by layer": [["--layers", "0"], ["--layers", "1"]],
}


def check(mesh, checkpoint, tokens=33):
    for layer in checkpoint.moe_layers:
        x = hidden_states(tokens, checkpoint.d_model, seed=layer)
        result = mesh.client.forward(layer, x, ForwardOptions(return_routing=True))
        expected, chosen = reference.forward(checkpoint, layer, x)
        assert_same(result.expert_ids, chosen.ids, f"experts of layer {layer}")
        assert_close(result.expert_weights, chosen.weights, rtol=1e-5, label=f"layer {layer}")
        assert_rows_close(result.output, expected, 1e-5, f"layer {layer}")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_agree_with_the_reference(mesh, checkpoint, layout):
    mesh.start(checkpoint.path, LAYOUTS[layout])
    check(mesh, checkpoint)


@pytest.mark.parametrize("family", FAMILIES)
def test_families_in_float32(mesh, checkpoints, family):
    checkpoint = checkpoints(family)
    mesh.start(checkpoint.path, shards(2))
    model = mesh.client.describe()
    assert model.family == family
    assert [layer.layer for layer in model.layers] == checkpoint.moe_layers
    check(mesh, checkpoint, tokens=100)


@pytest.mark.parametrize("family", FAMILIES)
def test_families_in_bfloat16(mesh, checkpoints, family):
    checkpoint = checkpoints(family, dtype="BF16")
    mesh.start(checkpoint.path, shards(2))
    checkpoint = checkpoint.computed_by(mesh)
    for layer in checkpoint.moe_layers:
        x = hidden_states(200, checkpoint.d_model, seed=layer).astype(ml_dtypes.bfloat16)
        result = mesh.client.forward(
            layer, x, ForwardOptions(return_routing=True, output_dtype="float32")
        )
        _, chosen = reference.forward(checkpoint, layer, x)
        # A logit whose exact value is half way between two bfloat16 numbers may be rounded either
        # way by two correct programs; such tokens, and only such, may choose differently.
        # DeepSeek's logits are not rounded.
        ulp = np.abs(reference.logits(checkpoint, layer, x)).max(axis=1) * 2**-7
        close = chosen.margin <= (1e-6 if family == "deepseek_v3" else ulp)
        ids, wanted = np.sort(result.expert_ids, axis=1), np.sort(chosen.ids, axis=1)
        assert_same(np.where(close[:, None], wanted, ids), wanted, f"experts of layer {layer}")
        same = np.all(ids == wanted, axis=1)
        assert same.mean() >= 0.95
        expected = reference.combine(checkpoint, layer, x, result.expert_ids, result.expert_weights)
        assert_rows_close(result.output, expected, 1e-2, f"layer {layer}")
        assert_close(
            np.sort(result.expert_weights[same], axis=1),
            np.sort(chosen.weights[same], axis=1),
            rtol=2e-2,
        )


@pytest.fixture(scope="module")
def shared_mesh(tmp_path_factory, checkpoint):
    with Mesh(tmp_path_factory.mktemp("mesh")) as mesh:
        yield mesh.start(checkpoint.path, shards(3))


def test_unary_and_stream_agree_bit_for_bit(shared_mesh, checkpoint):
    requests = [
        (i % 2, hidden_states(tokens, checkpoint.d_model, seed=i))
        for i, tokens in enumerate([1, 5, 64, 2, 17, 1, 130, 8] * 3)
    ]
    unary = [
        shared_mesh.client.forward(layer, x, ForwardOptions(return_routing=True))
        for layer, x in requests
    ]
    answers = list(shared_mesh.client.forward_many(requests, ForwardOptions(return_routing=True)))
    assert sorted(answer.index for answer in answers) == list(range(len(requests)))
    for answer in answers:
        streamed, alone = answer.unwrap(), unary[answer.index]
        label = f"request {answer.index}"
        assert_same_bits(streamed.output, alone.output, label)
        assert_same_bits(streamed.expert_ids, alone.expert_ids, label)
        assert_same_bits(streamed.expert_weights, alone.expert_weights, label)


def test_token_alone_and_in_any_batch_agree_bit_for_bit(shared_mesh, checkpoint):
    x = hidden_states(150, checkpoint.d_model, seed=9)
    client = shared_mesh.client
    whole = client.forward(0, x).output
    for size in (1, 2, 3, 7, 16, 65):
        part = np.concatenate(
            [client.forward(0, x[i : i + size]).output for i in range(0, 60, size)]
        )
        assert_same_bits(part, whole[: len(part)], f"requests of {size} tokens")
    shuffled = np.random.default_rng(1).permutation(150)
    assert_same_bits(client.forward(0, x[shuffled]).output, whole[shuffled])


def test_token_agrees_bit_for_bit_under_load(shared_mesh, checkpoint):
    x = hidden_states(40, checkpoint.d_model, seed=10)
    client = shared_mesh.client
    alone = client.forward(1, x).output

    def call(i):
        start, size = i % 40, 1 + i % 9
        part = client.forward(1, x[start : start + size]).output
        assert_same_bits(part, alone[start : start + size], f"tokens {start} to {start + size}")

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert len(list(pool.map(call, range(400)))) == 400


@pytest.mark.parametrize("output", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("given", ["float32", "float16", "bfloat16"])
def test_dtypes_on_the_wire(shared_mesh, checkpoint, given, output):
    dtype = np.dtype(getattr(ml_dtypes, given, None) or given)
    x = hidden_states(9, checkpoint.d_model).astype(dtype)
    result = shared_mesh.client.forward(0, x, ForwardOptions(output_dtype=output))
    expected, _ = reference.forward(checkpoint, 0, x)
    bound = {"float32": 1e-5, "float16": 1e-3, "bfloat16": 5e-3}[output]
    assert str(result.output.dtype) == output
    assert_rows_close(result.output, expected, bound)


def test_time_in_nodes_is_part_of_the_time_of_the_experts(shared_mesh, checkpoint):
    # One machine, hence one monotonic clock; idle nodes, hence nothing but their own work.
    timing = shared_mesh.client.forward(0, hidden_states(512, checkpoint.d_model)).timing
    assert timing.nodes == 3
    assert timing.node_compute_us > 0
    assert timing.node_queue_us + timing.node_compute_us <= timing.experts_us


def test_metrics_count_tokens(shared_mesh, checkpoint):
    router = shared_mesh.router
    before = router.metric("expertmesh_router_tokens_total")
    shared_mesh.client.forward(0, hidden_states(21, checkpoint.d_model))
    assert router.metric("expertmesh_router_tokens_total") == before + 21


def test_metrics_count_destinations(shared_mesh, checkpoint):
    names = ["planned_tokens", "token_transfers", "uniform_token_transfers"]

    def read():
        return [shared_mesh.router.metric(f"expertmesh_router_{name}_total") for name in names]

    before = read()
    shared_mesh.client.forward(0, hidden_states(40, checkpoint.d_model))
    tokens, transfers, uniform = (now - then for now, then in zip(read(), before))
    assert tokens == 40
    assert 40 <= transfers <= 40 * 3
    assert uniform == transfers  # Without replicas there is no choice.


def test_tensor_bytes_are_copied_at_most_once(shared_mesh, checkpoint):
    programs = [shared_mesh.router, *shared_mesh.nodes]

    def read():
        return [
            (
                program.metric("expertmesh_process_tensor_copied_bytes_total"),
                program.metric("expertmesh_process_message_bytes_total"),
            )
            for program in programs
        ]

    before = read()
    shared_mesh.client.forward(0, hidden_states(64, checkpoint.d_model))
    for program, (copied, moved), (copied_before, moved_before) in zip(programs, read(), before):
        assert 0 < copied - copied_before <= moved - moved_before, program.name
