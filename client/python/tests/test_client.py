"""What Client promises, against the small router of conftest.py."""

import concurrent.futures
import sys

import grpc
import ml_dtypes
import numpy as np
import pytest
from arrays import assert_same

import expertmesh
from expertmesh import ForwardOptions
from expertmesh.v1 import tensor_pb2

# A bound on what takes milliseconds where no other process is in the way.
PATIENCE = 300


@pytest.fixture
def client(router):
    with expertmesh.Client(router.address, timeout=PATIENCE) as client:
        yield client


def hidden(*shape, dtype=np.float32):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


@pytest.mark.parametrize(
    "dtype,wire",
    [
        (np.float32, tensor_pb2.DTYPE_F32),
        (np.float16, tensor_pb2.DTYPE_F16),
        (ml_dtypes.bfloat16, tensor_pb2.DTYPE_BF16),
    ],
)
def test_output_has_dtype_and_shape_of_input(router, client, dtype, wire):
    x = hidden(3, 8, dtype=dtype)
    result = client.forward(1, x)
    assert router.requests[0].hidden_states.dtype == wire
    assert result.output.dtype == x.dtype
    assert result.output.shape == (3, 8)
    assert_same(result.output, x * 2)
    assert result.epoch == 5
    assert result.expert_ids is None and result.expert_weights is None
    assert result.timing == expertmesh.ForwardTiming(
        queue_us=1,
        route_us=2,
        experts_us=30,
        combine_us=4,
        batch_tokens=3,
        nodes=5,
        node_queue_us=6,
        node_compute_us=7,
    )


def test_leading_dimensions_come_back(client):
    result = client.forward(0, hidden(2, 5, 8), ForwardOptions(return_routing=True))
    assert result.output.shape == (2, 5, 8)
    assert result.expert_ids.shape == (2, 5, 2) and result.expert_ids.dtype == np.uint32
    assert result.expert_weights.shape == (2, 5, 2) and result.expert_weights.dtype == np.float32
    assert_same(result.expert_ids[1, 4], [0, 1])
    assert_same(result.expert_weights[1, 4], [0.75, 0.25])


def test_zero_tokens(client):
    result = client.forward(0, np.zeros((0, 8), np.float32), ForwardOptions(return_routing=True))
    assert result.output.shape == (0, 8)
    assert result.expert_ids.shape == (0, 2)


def test_array_that_is_not_contiguous_or_not_native(client):
    x = hidden(6, 16)[::2, ::2]
    assert_same(client.forward(0, x).output, x)
    big_endian = hidden(2, 8).astype(">f4")
    assert_same(client.forward(0, big_endian).output, hidden(2, 8))


@pytest.mark.parametrize("name", ["float16", "f16", np.float16, np.dtype(np.float16)])
def test_output_dtype(client, name):
    assert (
        client.forward(0, hidden(1, 8), ForwardOptions(output_dtype=name)).output.dtype
        == np.float16
    )


def test_output_shares_memory_with_the_answer(client):
    output = client.forward(0, hidden(2, 8)).output
    assert not output.flags.owndata and not output.flags.writeable


def test_groups_token_ids_and_seed_are_sent(router, client):
    client.forward(
        0,
        hidden(5, 8),
        ForwardOptions(group_sizes=[2, 3], token_ids=np.arange(5), routing_seed=2**63),
    )
    request = router.requests[0]
    assert list(request.group_sizes) == [2, 3]
    assert list(request.token_ids) == [0, 1, 2, 3, 4]
    assert request.routing_seed == 2**63
    client.forward(0, hidden(2, 3, 8), ForwardOptions(token_ids=np.arange(6).reshape(2, 3)))
    request = router.requests[1]
    assert list(request.token_ids) == [0, 1, 2, 3, 4, 5]
    assert not request.group_sizes and not request.HasField("routing_seed")
    client.forward(0, hidden(1, 8), ForwardOptions(routing_seed=0))
    assert router.requests[2].HasField("routing_seed")


@pytest.mark.parametrize(
    "options,words",
    [
        ({"group_sizes": [-1]}, "group_sizes has values from -1"),
        ({"token_ids": [0, 2**32]}, "token_ids has values from 0 to 4294967296"),
        ({"token_ids": [0.5]}, "token_ids has dtype float64"),
        ({"routing_seed": -1}, "routing_seed is -1"),
        ({"routing_seed": 2**64}, "routing_seed is 18446744073709551616"),
    ],
)
def test_bad_routing_options_are_refused_before_sending(router, client, options, words):
    with pytest.raises(expertmesh.InvalidArgument) as caught:
        client.forward(0, hidden(1, 8), ForwardOptions(**options))
    assert words in str(caught.value)
    assert router.requests == []


def test_dropped_assignments_come_back_always(router, client):
    assert client.forward(0, hidden(2, 8)).dropped.shape == (0, 2)
    router.dropped = [(0, 3), (5, 1)]
    result = client.forward(0, hidden(2, 3, 8))
    assert result.expert_ids is None and result.assignments_per_token is None
    assert result.dropped.dtype == np.uint32
    assert_same(result.dropped, [[0, 3], [5, 1]])


def test_ragged_routing(router, client):
    assert (
        client.forward(0, hidden(6, 8), ForwardOptions(return_routing=True)).assignments_per_token
        is None
    )
    router.assignments = [2, 0, 1, 0, 0, 4]
    result = client.forward(0, hidden(2, 3, 8), ForwardOptions(return_routing=True))
    assert_same(result.assignments_per_token, [[2, 0, 1], [0, 0, 4]])
    assert_same(result.expert_ids, np.arange(7))
    assert result.expert_weights.shape == (7,) and result.expert_weights.dtype == np.float32
    router.assignments = [2, 1]
    with pytest.raises(expertmesh.Internal, match="2 assignments_per_token"):
        client.forward(0, hidden(2, 3, 8), ForwardOptions(return_routing=True))


def test_requests_of_a_stream_have_options_of_their_own(router, client):
    own = ForwardOptions(token_ids=[7, 8], routing_seed=5, timeout=2)
    items = [(0, hidden(2, 8), own), (1, hidden(1, 8))]
    answers = client.forward_many(items, ForwardOptions(return_routing=True, timeout=3))
    first, second = sorted(answers, key=lambda answer: answer.index)
    assert first.unwrap().expert_ids is None and second.unwrap().expert_ids is not None
    assert [list(request.token_ids) for request in router.requests] == [[7, 8], []]
    assert [request.timeout_us for request in router.requests] == [2_000_000, 3_000_000]
    assert router.requests[0].routing_seed == 5


def test_options_of_another_kind_are_refused(router, client):
    with pytest.raises(expertmesh.InvalidArgument, match="use expertmesh.ForwardOptions"):
        client.forward(0, hidden(1, 8), {"timeout": 1})
    items = [(0, hidden(1, 8), {"timeout": 1}), (0, hidden(1, 8))]
    answers = {answer.index: answer for answer in client.forward_many(items)}
    assert "use expertmesh.ForwardOptions" in str(answers[0].error)
    assert answers[1].error is None
    assert len(router.requests) == 1


@pytest.mark.parametrize(
    "array,words",
    [
        (hidden(8), "hidden states are [tokens, d_model]"),
        (hidden(2, 8, dtype=np.float64), "float64"),
        (hidden(2, 8, dtype=np.int32), "int32"),
    ],
)
def test_bad_arrays_are_refused_before_sending(router, client, array, words):
    with pytest.raises(expertmesh.InvalidArgument) as caught:
        client.forward(0, array)
    assert words in str(caught.value)
    assert router.requests == []


def test_bad_layer_and_output_dtype(client):
    with pytest.raises(expertmesh.InvalidArgument, match="layer is -1"):
        client.forward(-1, hidden(1, 8))
    with pytest.raises(expertmesh.InvalidArgument, match="output_dtype is int8"):
        client.forward(0, hidden(1, 8), ForwardOptions(output_dtype=np.int8))
    with pytest.raises(expertmesh.InvalidArgument, match="output_dtype is 'nonsense'"):
        client.forward(0, hidden(1, 8), ForwardOptions(output_dtype="nonsense"))


@pytest.mark.parametrize(
    "code,kind",
    [
        (grpc.StatusCode.INVALID_ARGUMENT, expertmesh.InvalidArgument),
        (grpc.StatusCode.UNAVAILABLE, expertmesh.Unavailable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, expertmesh.ResourceExhausted),
        (grpc.StatusCode.FAILED_PRECONDITION, expertmesh.FailedPrecondition),
        (grpc.StatusCode.NOT_FOUND, expertmesh.NotFound),
        (grpc.StatusCode.UNAUTHENTICATED, expertmesh.Unauthenticated),
        (grpc.StatusCode.INTERNAL, expertmesh.Internal),
    ],
)
def test_server_errors_keep_code_and_message(router, client, code, kind):
    router.fail_with = (code, "layer 3: experts 4, 5 have no ready node")
    with pytest.raises(kind) as caught:
        client.forward(0, hidden(1, 8))
    assert type(caught.value) is kind
    assert caught.value.code is code
    assert caught.value.message == "layer 3: experts 4, 5 have no ready node"
    router.fail_with = None
    assert client.forward(0, hidden(1, 8)).output.shape == (1, 8)


def test_timeout(router, client):
    router.hold.clear()
    with pytest.raises(expertmesh.DeadlineExceeded) as caught:
        client.forward(0, hidden(1, 8), ForwardOptions(timeout=0.05))
    assert isinstance(caught.value, TimeoutError)


def test_no_router_and_closed_client():
    with expertmesh.Client("127.0.0.1:1", timeout=PATIENCE) as client:
        with pytest.raises(expertmesh.Unavailable):
            client.describe()
    with pytest.raises(expertmesh.Cancelled):
        client.describe()


def test_message_over_the_routers_limit(client):
    with pytest.raises(expertmesh.ResourceExhausted):
        client.forward(0, np.zeros((40000, 8), np.float32))
    assert client.forward(0, hidden(1, 8)).output.shape == (1, 8)


def test_describe_topology_health(client):
    model = client.describe()
    assert (model.family, model.d_model, len(model.layers)) == ("qwen3_moe", 8, 4)
    topology = client.topology()
    assert topology.ready
    (node,) = topology.nodes
    assert node.hidden_states_dtype == tensor_pb2.DTYPE_BF16
    assert "partials_dtype: DTYPE_INT8_BLOCK128" in str(node)
    assert client.health() is expertmesh.Health.SERVING
    assert client.health("down") is expertmesh.Health.NOT_SERVING
    assert client.health("nobody") is expertmesh.Health.SERVICE_UNKNOWN


def test_one_client_from_many_threads(client):
    def call(i):
        x = np.full((i % 5 + 1, 8), i, np.float32)
        assert_same(client.forward(i % 4, x).output, x * (i % 4 + 1), f"call {i}")

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(call, range(200)))) == 200


def test_stream_answers_out_of_order_are_matched(router, client):
    router.reverse_after = 4
    xs = [np.full((i + 1, 8), i, np.float32) for i in range(12)]
    answers = list(
        client.forward_many(
            ((i % 4, x) for i, x in enumerate(xs)), ForwardOptions(return_routing=True)
        )
    )
    assert [answer.index for answer in answers[:4]] == [3, 2, 1, 0]
    assert sorted(answer.index for answer in answers) == list(range(12))
    for answer in answers:
        i = answer.index
        assert answer.layer == i % 4
        assert_same(answer.unwrap().output, xs[i] * (i % 4 + 1))
        assert answer.unwrap().expert_ids.shape == (i + 1, 2)


def test_stream_errors_stay_with_their_request(client):
    requests = [
        (0, hidden(1, 8)),
        (9, hidden(1, 8)),
        (0, hidden(1, 7)),
        (0, hidden(8)),
        (1, hidden(1, 8)),
    ]
    answers = {answer.index: answer for answer in client.forward_many(requests)}
    assert sorted(answers) == [0, 1, 2, 3, 4]
    for index, words in ((1, "layer is 9"), (2, "d_model 7"), (3, "[tokens, d_model]")):
        assert answers[index].result is None
        with pytest.raises(expertmesh.InvalidArgument) as caught:
            answers[index].unwrap()
        assert words in str(caught.value)
    assert_same(answers[4].unwrap().output, hidden(1, 8) * 2)


def test_stream_bounds_what_is_in_flight(client):
    drawn = []

    def requests():
        for i in range(20):
            drawn.append(i)
            yield 0, hidden(1, 8)

    for seen, answer in enumerate(client.forward_many(requests(), max_in_flight=2), 1):
        # Two in flight, one more drawn and waiting for room.
        assert len(drawn) <= seen - 1 + 2 + 1
        answer.unwrap()
    with pytest.raises(expertmesh.InvalidArgument, match="max_in_flight is 0"):
        client.forward_many([], max_in_flight=0)


def test_stream_timeout_travels_with_each_request(router, client):
    list(client.forward_many([(0, hidden(1, 8))], ForwardOptions(timeout=1500.5)))
    list(client.forward_many([(0, hidden(1, 8))]))
    assert [request.timeout_us for request in router.requests] == [1_500_500_000, PATIENCE * 10**6]


def test_stream_passes_on_the_sources_exception(client):
    def requests():
        yield 0, hidden(1, 8)
        raise KeyError("the caller's own")

    answers = []
    with pytest.raises(KeyError, match="the caller's own"):
        for answer in client.forward_many(requests()):
            answers.append(answer)
    assert [answer.index for answer in answers] == [0]


def test_stream_left_early(client):
    def endless():
        while True:
            yield 0, hidden(1, 8)

    for answer in client.forward_many(endless(), max_in_flight=4):
        if answer.index >= 3:
            break
    assert client.forward(0, hidden(1, 8)).output.shape == (1, 8)


def test_stream_without_router():
    with expertmesh.Client("127.0.0.1:1", timeout=PATIENCE) as client:
        with pytest.raises(expertmesh.Unavailable):
            list(client.forward_many([(0, hidden(1, 8))]))


def test_empty_stream(client):
    assert list(client.forward_many([])) == []


def test_torch_is_not_imported_by_the_package():
    import subprocess

    code = "import sys, expertmesh; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_torch_tensors(client, name):
    torch = pytest.importorskip("torch")
    x = torch.arange(24, dtype=torch.float32).reshape(3, 8).to(getattr(torch, name))
    result = client.forward(1, x.requires_grad_(), ForwardOptions(output_dtype=x.dtype))
    assert isinstance(result.output, torch.Tensor)
    assert result.output.dtype == x.dtype
    assert_same(result.output, x.detach() * 2)
    result.output.add_(1)  # It owns its memory.
