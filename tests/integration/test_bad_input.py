"""Bad input gives a clear error, and the service goes on."""

import json
import subprocess

import grpc
import numpy as np
import pytest

import expertmesh
import reference
from arrays import assert_rows_close, assert_same_bits
from checkpoint import make_checkpoint, write_safetensors
from expertmesh import ForwardOptions
from expertmesh.v1 import control_pb2, router_pb2, router_pb2_grpc, tensor_pb2
from mesh import HOST, PATIENCE, Mesh, entry, hidden_states, program, shards


@pytest.fixture(scope="module")
def serving(tmp_path_factory, checkpoint):
    with Mesh(tmp_path_factory.mktemp("mesh")) as mesh:
        yield mesh.start(checkpoint.path, shards(2))


@pytest.fixture
def goes_on(serving, checkpoint):
    """After the test: the same processes still answer, and correctly."""
    yield
    assert all(running.process.poll() is None for running in serving.programs)
    x = hidden_states(5, checkpoint.d_model)
    expected, _ = reference.forward(checkpoint, 0, x)
    assert_rows_close(serving.client.forward(0, x).output, expected, 1e-5)


def request(checkpoint, **changes):
    """A good request of 3 tokens, with fields changed."""
    x = hidden_states(3, checkpoint.d_model)
    tensor = dict(dtype=tensor_pb2.DTYPE_F32, shape=x.shape, data=x.tobytes())
    tensor.update(changes.pop("tensor", {}))
    fields = dict(layer=0, hidden_states=tensor_pb2.Tensor(**tensor))
    fields.update(changes)
    return router_pb2.ForwardRequest(**fields)


# What is sent, and the words that the message must have.
BAD_REQUESTS = {
    "d_model": (
        dict(tensor=dict(shape=[3, 60], data=bytes(3 * 60 * 4))),
        ["hidden_states", "60", "64"],
    ),
    "layer that does not exist": (dict(layer=99), ["layer", "99"]),
    "no dtype": (dict(tensor=dict(dtype=0)), ["dtype"]),
    "int8 with the bytes of f32": (dict(tensor=dict(dtype=4)), ["768", "192", "INT8_BLOCK128"]),
    "int8 without scales": (dict(tensor=dict(dtype=4, data=bytes(192))), ["scales", "0", "12"]),
    "int8 with half a scale": (
        dict(tensor=dict(dtype=4, data=bytes(192), scales=bytes(10))),
        ["scales", "10", "12"],
    ),
    "scales of f32": (dict(tensor=dict(scales=bytes(12))), ["scales", "12", "empty"]),
    "dtype that does not exist": (dict(tensor=dict(dtype=77)), ["dtype", "77"]),
    "too few bytes": (dict(tensor=dict(data=bytes(700))), ["700", "768"]),
    "too many bytes": (dict(tensor=dict(data=bytes(772))), ["772", "768"]),
    "one dimension": (dict(tensor=dict(shape=[192])), ["shape"]),
    "three dimensions": (dict(tensor=dict(shape=[1, 3, 64])), ["shape"]),
    "shape whose product overflows": (dict(tensor=dict(shape=[2**58, 64])), ["hidden_states"]),
    "shape of a petabyte": (dict(tensor=dict(shape=[2**42, 64])), ["768"]),
    "no tensor": (dict(hidden_states=None), ["hidden_states"]),
    "extension": (
        dict(extensions={"acme.ids": tensor_pb2.Extension(raw=b"1")}),
        ["extensions", "acme.ids"],
    ),
    "extension with a strange name": (
        dict(extensions={"\n" + "x" * 1000: tensor_pb2.Extension(raw=bytes(1 << 20))}),
        ["extensions has an entry '\\n" + "x" * 63 + "'"],
    ),
    "extension with more bytes than any request needs": (
        dict(extensions={"acme.ids": tensor_pb2.Extension(raw=bytes(9 << 20))}),
        ["extensions", "more than 4194304 bytes beside its tensor's values"],
    ),
    "output dtype that does not exist": (dict(output_dtype=77), ["output_dtype", "77"]),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_bad_request(serving, goes_on, checkpoint, case):
    changes, words = BAD_REQUESTS[case]
    bad = request(checkpoint, request_id=2, **{**changes})
    stub = router_pb2_grpc.RouterStub(serving.client.channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Forward(bad, timeout=PATIENCE)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    for word in words:
        assert word in caught.value.details()
    # On a stream the error is in the answer, and neighbours get theirs.
    good = [request(checkpoint, request_id=1), request(checkpoint, request_id=3)]
    answers = {
        answer.request_id: answer
        for answer in stub.ForwardStream(iter([good[0], bad, good[1]]), timeout=PATIENCE)
    }
    assert sorted(answers) == [1, 2, 3]
    assert answers[2].status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    for word in words:
        assert word in answers[2].status.message
    assert not answers[2].HasField("output")
    assert answers[1].status.code == answers[3].status.code == 0
    assert_same_bits(answers[1].output.data, answers[3].output.data)


def test_bytes_that_are_no_message(serving, goes_on):
    garbage = serving.client.channel.unary_unary("/expertmesh.v1.Router/Forward")
    with pytest.raises(grpc.RpcError) as caught:
        garbage(b"\xff" * 100, timeout=PATIENCE)
    assert caught.value.code() in (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.INTERNAL,
    )


def test_nan_and_inf_are_passed_on_and_counted(serving, goes_on, checkpoint):
    x = hidden_states(6, checkpoint.d_model)
    clean = serving.client.forward(0, x).output
    x[1, 3] = np.nan
    x[4, 0] = np.inf
    before = serving.router.metric("expertmesh_router_nonfinite_tokens_total")
    result = serving.client.forward(0, x, ForwardOptions(return_routing=True))
    assert serving.router.metric("expertmesh_router_nonfinite_tokens_total") == before + 2
    for row in (0, 2, 3, 5):
        assert_same_bits(result.output[row], clean[row], f"token {row}")
    assert not np.isfinite(result.output[1]).any()
    assert not np.isfinite(result.output[4]).all()
    for ids in result.expert_ids:
        assert len(set(ids)) == 3 and max(ids) < 12


def test_zero_tokens(serving, goes_on, checkpoint):
    empty = np.zeros((0, checkpoint.d_model), np.float32)
    result = serving.client.forward(0, empty, ForwardOptions(return_routing=True))
    assert result.output.shape == (0, checkpoint.d_model)
    assert result.expert_ids.shape[0] == 0
    (answer,) = serving.client.forward_many([(1, empty)])
    assert answer.unwrap().output.shape == (0, checkpoint.d_model)


def test_message_over_the_limit(serving, goes_on, checkpoint):
    limit = serving.client.describe().max_message_bytes
    row = 4 * checkpoint.d_model
    assert 0 < limit <= 2**30
    too_many = np.zeros((limit // row + 1, checkpoint.d_model), np.float32)
    with pytest.raises(expertmesh.ResourceExhausted):
        serving.client.forward(0, too_many)


@pytest.mark.parametrize("timeout_us", [0, -1])
def test_deadline_already_past(serving, goes_on, checkpoint, timeout_us):
    late = request(checkpoint, request_id=7, timeout_us=timeout_us)
    stub = router_pb2_grpc.RouterStub(serving.client.channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Forward(late, timeout=PATIENCE)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    answers = list(stub.ForwardStream(iter([late, request(checkpoint)]), timeout=PATIENCE))
    codes = {answer.request_id: answer.status.code for answer in answers}
    assert codes == {7: grpc.StatusCode.DEADLINE_EXCEEDED.value[0], 0: 0}


def test_invalid_traceparent_is_ignored(serving, goes_on, checkpoint):
    x = hidden_states(1, checkpoint.d_model)
    assert (
        serving.client.forward(0, x, ForwardOptions(traceparent="nonsense")).output.shape == x.shape
    )


def test_node_with_another_model_is_refused(mesh, checkpoint, tmp_path):
    other = make_checkpoint(tmp_path / "other", seed=2)
    mesh.start_node(checkpoint.path, "--experts", "0-5")
    stranger = mesh.start_node(other.path, "--experts", "6-11")
    mesh.start_router(checkpoint.path)
    topology = mesh.watch(
        lambda t: entry(t, mesh.nodes[0]).link == control_pb2.NODE_LINK_UP
        and entry(t, stranger).link == control_pb2.NODE_LINK_REFUSED,
        "the stranger is refused",
    )
    refused = entry(topology, stranger)
    theirs = refused.description.fingerprint
    ours = topology.fingerprint
    assert len(theirs) == len(ours) == 64 and theirs != ours
    assert ours in refused.reason and theirs in refused.reason
    assert not topology.ready
    # The right node in the stranger's place makes the mesh whole.
    stranger.stop()
    good = mesh.make_node(checkpoint.path, "--experts", "6-11")
    good.listen, good.metrics_listen = stranger.listen, f"{HOST}:0"
    good.start()
    mesh.wait_ready()
    x = hidden_states(8, checkpoint.d_model)
    expected, _ = reference.forward(checkpoint, 0, x)
    assert_rows_close(mesh.client.forward(0, x).output, expected, 1e-5)


def _rewrite(checkpoint, change):
    tensors = dict(checkpoint.tensors)
    change(tensors)
    write_safetensors(checkpoint.weights_file, tensors)


def truncate(checkpoint):
    data = checkpoint.weights_file.read_bytes()
    checkpoint.weights_file.write_bytes(data[: len(data) // 2])
    return ["model.safetensors"]


def drop_tensor(checkpoint):
    name = "model.layers.1.mlp.experts.7.up_proj.weight"
    _rewrite(checkpoint, lambda tensors: tensors.pop(name))
    return [name]


def wrong_shape(checkpoint):
    name = "model.layers.0.mlp.gate.weight"
    _rewrite(checkpoint, lambda tensors: tensors.update({name: np.zeros((11, 64), np.float32)}))
    return ["model.safetensors", name]


def wrong_type(checkpoint):
    name = "model.layers.0.mlp.experts.0.down_proj.weight"
    _rewrite(checkpoint, lambda tensors: tensors.update({name: np.zeros((64, 32), np.int64)}))
    return ["model.safetensors", name]


def overlap(checkpoint):
    data = bytearray(checkpoint.weights_file.read_bytes())
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    names = sorted(header)
    header[names[1]]["data_offsets"] = header[names[0]]["data_offsets"]
    text = json.dumps(header).encode().ljust(length)
    checkpoint.weights_file.write_bytes(bytes(data[:8]) + text[:length] + bytes(data[8 + length :]))
    return ["model.safetensors"]


def unknown_family(checkpoint):
    config = checkpoint.config | {"model_type": "frobnicator", "architectures": ["FrobForCausalLM"]}
    (checkpoint.path / "config.json").write_text(json.dumps(config))
    return ["config.json", "frobnicator", "mixtral", "qwen3_moe", "deepseek_v3"]


def bad_json(checkpoint):
    (checkpoint.path / "config.json").write_text('{"model_type": ')
    return ["config.json"]


def no_config(checkpoint):
    (checkpoint.path / "config.json").unlink()
    return ["config.json"]


@pytest.mark.parametrize("which", ["router", "expert"])
@pytest.mark.parametrize(
    "damage",
    [truncate, drop_tensor, wrong_shape, wrong_type, overlap, unknown_family, bad_json, no_config],
)
def test_damaged_checkpoint(tmp_path, damage, which):
    damaged = make_checkpoint(tmp_path / "model")
    words = damage(damaged)
    flags = ["--nodes", f"{HOST}:1"] if which == "router" else ["--shard", "0/1"]
    done = run(which, "--model", damaged.path, *flags, tmp_path=tmp_path)
    assert done.returncode == 1
    for word in words:
        assert word in done.stderr


def run(which, *flags, tmp_path):
    """Runs a service that is expected to refuse to start."""
    listen = ["--listen", f"{HOST}:0", "--metrics-listen", f"{HOST}:0"]
    listen += ["--port-file", str(tmp_path / "port")]
    return subprocess.run(
        [program(which), *map(str, flags)] + [flag for flag in listen],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("which", ["router", "expert"])
def test_port_in_use(serving, goes_on, checkpoint, tmp_path, which):
    taken = serving.router if which == "router" else serving.nodes[0]
    own = ["--nodes", f"{HOST}:1"] if which == "router" else ["--shard", "0/1"]
    done = subprocess.run(
        [program(which), "--model", str(checkpoint.path), *own]
        + ["--listen", taken.listen, "--metrics-listen", f"{HOST}:0"]
        + ["--port-file", str(tmp_path / "port")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    assert taken.address in done.stderr
    assert not (tmp_path / "port").exists()


@pytest.mark.parametrize(
    "which,flags,words",
    [
        ("expert", ["--shard", "4/4"], ["--shard", "4/4"]),
        ("expert", ["--experts", "0-99"], ["--experts", "0-99"]),
        ("expert", ["--layers", "7"], ["--layers", "7"]),
        ("expert", ["--slice", "0/5"], ["slice"]),
        ("expert", ["--shard", "0/2", "--replicas", "3"], ["--replicas", "3"]),
        ("expert", ["--compute-dtype", "f8"], ["f8", "bf16"]),
        ("router", ["--nodes", "nonsense"], ["nonsense", "host:port"]),
        ("router", ["--nodes", ""], ["--nodes"]),
    ],
)
def test_bad_flags(checkpoint, tmp_path, which, flags, words):
    done = run(which, "--model", checkpoint.path, *flags, tmp_path=tmp_path)
    assert done.returncode == 1
    for word in words:
        assert word in done.stderr
