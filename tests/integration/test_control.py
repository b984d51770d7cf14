"""What operators ask of a router, three ways: the command, Client and AsyncClient say the same."""

import asyncio
import concurrent.futures
import itertools
import json
import subprocess

import grpc
import numpy as np
import pytest

import expertmesh
from arrays import assert_same, assert_same_bits
from expertmesh import ForwardOptions
from expertmesh.v1 import control_pb2, control_pb2_grpc
from mesh import PATIENCE, Mesh, cli, entry, hidden_states, shards


@pytest.fixture(scope="module")
def serving(tmp_path_factory, checkpoint):
    with Mesh(tmp_path_factory.mktemp("mesh")) as mesh:
        yield mesh.start(checkpoint.path, shards(2))


def ask(address, call, **options):
    """call(client) of a Client; AsyncClient must say the same, an error included."""

    def blocking():
        with expertmesh.Client(address, timeout=PATIENCE, **options) as client:
            return call(client)

    async def awaited():
        async with expertmesh.AsyncClient(address, timeout=PATIENCE, **options) as client:
            return await call(client)

    try:
        answer = blocking()
    except expertmesh.ExpertmeshError as error:
        with pytest.raises(type(error)):
            asyncio.run(awaited())
        raise
    assert asyncio.run(awaited()) == answer
    return answer


def command(name, address, *arguments, **options):
    return json.loads(cli(name, "--router", address, "--json", *arguments, **options).stdout)


def without_ages(topology):
    for age in ("since_change_ms", "since_tick_ms"):
        topology.balance.ClearField(age)
    return topology


def test_topology(serving):
    with expertmesh.Client(serving.router.address, timeout=PATIENCE) as client:
        said = client.topology()

    async def awaited():
        async with expertmesh.AsyncClient(serving.router.address, timeout=PATIENCE) as client:
            return await client.topology()

    # Time passes between the two.
    assert without_ages(asyncio.run(awaited())) == without_ages(said)
    told = command("topology", serving.router.address)
    assert said.ready and told["ready"]
    assert told["balance"]["role"] == "authority" and told["balance"]["alive"]
    assert told["balance"]["term"] == said.balance.term
    assert told["revision"] == said.revision > 0
    assert [node["address"] for node in told["nodes"]] == [node.address for node in said.nodes]


def test_load(serving, checkpoint):
    address, layer = serving.router.address, checkpoint.moe_layers[-1]
    before = ask(address, lambda client: client.get_load()).layers[-1]
    x = hidden_states(50, checkpoint.d_model)
    chosen = serving.client.forward(layer, x, ForwardOptions(return_routing=True)).expert_ids
    said = ask(address, lambda client: client.get_load())
    assert [load.layer for load in said.layers] == checkpoint.moe_layers
    after = said.layers[-1]
    assert after.tokens - before.tokens == 50
    gained = np.array(after.assignments) - np.array(before.assignments)
    assert_same(gained, np.bincount(chosen.reshape(-1), minlength=len(gained)))
    told = command("load", address)
    assert told["epoch"] == said.epoch
    for load, shown in zip(said.layers, told["layers"], strict=True):
        counts = list(load.assignments)
        assert (shown["layer"], shown["tokens"]) == (load.layer, load.tokens)
        assert shown["assignments"] == counts
        assert (shown["max"], shown["mean"]) == (max(counts), sum(counts) / len(counts))
        assert shown["max_violation"] == pytest.approx(
            max(counts) / shown["mean"] - 1 if shown["mean"] else 0
        )
    heading, *rows = cli("load", "--router", address).stdout.splitlines()
    columns = "layer tokens assignments experts mean max busiest MaxVio CV entropy dead changed"
    assert heading.split() == columns.split()
    assert [int(row.split()[0]) for row in rows] == checkpoint.moe_layers
    busiest = f"expert {np.argmax(after.assignments)}"
    assert busiest in rows[-1] and f"{told['layers'][-1]['max_violation']:.2f}" in rows[-1]


def test_drain(serving, checkpoint):
    router, node = serving.router.address, serving.nodes[0]
    x = hidden_states(9, checkpoint.d_model)
    before = serving.client.forward(checkpoint.moe_layers[0], x).output
    said = cli("drain", "--router", router, node.address, "--wait", PATIENCE).stdout
    assert said.startswith(f"{node.address}  draining") and "in flight 0 batches, 0 rows" in said
    assert entry(serving.client.topology(), node).link == control_pb2.NODE_LINK_DRAINING
    # What no other node holds is still computed there.
    after = serving.client.forward(checkpoint.moe_layers[0], x).output
    assert_same_bits(before, after)
    resumed = ask(router, lambda client: client.drain_node(node.address, resume=True))
    assert (resumed.address, resumed.link) == (node.address, control_pb2.NODE_LINK_UP)
    drained = ask(router, lambda client: client.drain_node(node.address))
    assert drained.link == control_pb2.NODE_LINK_DRAINING
    said = cli("drain", "--router", router, "--resume", node.address).stdout
    assert said.startswith(f"{node.address}  up")
    with pytest.raises(expertmesh.NotFound, match="'nowhere:1' is no node"):
        ask(router, lambda client: client.drain_node("nowhere:1"))
    assert "nowhere:1" in cli("drain", "--router", router, "nowhere:1", code=1).stderr
    both = cli("drain", "--router", router, node.address, "--resume", "--wait", "1", code=1)
    assert "leave it out with --resume" in both.stderr


def test_drain_waits_for_what_is_in_flight(fake_control):
    address, control = fake_control
    arguments = ["drain", "--router", address, "node:1"]
    control.rows_in_flight = itertools.repeat(7)
    assert "draining  in flight 0 batches, 7 rows" in cli(*arguments).stdout
    late = cli(*arguments, "--wait", "0", code=1)
    assert "7 rows" in late.stderr and "what no other ready node holds" in late.stderr
    control.rows_in_flight = iter([7, 7, 3, 0])
    assert "in flight 0 batches, 0 rows" in cli(*arguments, "--wait", PATIENCE).stdout
    control.rows_in_flight = itertools.repeat(0)
    assert "gone:1 has left the mesh" in (
        cli("drain", "--router", address, "gone:1", "--wait", "1", code=1).stderr
    )


class FakeControl(control_pb2_grpc.ControlServicer):
    """A router with one node, whose rows in flight are drawn from an iterator."""

    rows_in_flight = itertools.repeat(0)

    def node(self):
        return control_pb2.TopologyNode(
            address="node:1",
            link=control_pb2.NODE_LINK_DRAINING,
            rows_in_flight=next(self.rows_in_flight),
        )

    def GetTopology(self, request, context):
        topology = control_pb2.Topology(epoch=5, ready=True, nodes=[self.node()])
        return control_pb2.GetTopologyResponse(topology=topology)

    def DrainNode(self, request, context):
        return control_pb2.DrainNodeResponse(node=self.node())


@pytest.fixture
def fake_control():
    """The address of a FakeControl, and itself."""
    control = FakeControl()
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    control_pb2_grpc.add_ControlServicer_to_server(control, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield address, control
    server.stop(None).wait()


def make_certificate(folder, name):
    """A key, and a certificate that it has signed for itself."""
    key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ]
        + ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-days", "2"]
        + ["-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
        timeout=PATIENCE,
    )
    return key, certificate


@pytest.fixture
def behind_tls(tmp_path):
    """The address of a router that asks its clients for a certificate, and the files that a client needs."""
    key, certificate = make_certificate(tmp_path, "router.test")
    own_key, own_certificate = make_certificate(tmp_path, "caller.test")
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    control_pb2_grpc.add_ControlServicer_to_server(FakeControl(), server)
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())], own_certificate.read_bytes(), True
    )
    address = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"
    server.start()
    yield address, certificate, own_key, own_certificate
    server.stop(None).wait()


def test_a_router_behind_tls(behind_tls):
    address, authority, key, certificate = behind_tls
    credentials = grpc.ssl_channel_credentials(
        authority.read_bytes(), key.read_bytes(), certificate.read_bytes()
    )
    named = [("grpc.ssl_target_name_override", "router.test")]
    said = ask(address, lambda c: c.topology(), credentials=credentials, options=named)
    trust = ["--tls-ca", authority, "--tls-server-name", "router.test"]
    show = ["--tls-cert", certificate, "--tls-key", key]
    assert said.epoch == command("topology", address, *trust, *show)["epoch"] == 5
    for given in ([], ["--tls"], trust, [*trust[:2], *show], [*trust[2:], *show]):
        failed = cli("topology", "--router", address, *given, code=1)
        assert address in failed.stderr and "failed to connect" in failed.stderr


def test_files_of_tls_that_cannot_be_used_are_named(tmp_path):
    key, certificate = make_certificate(tmp_path, "caller.test")
    for flags, words in (
        (["--tls-ca", tmp_path / "missing"], f"--tls-ca: {tmp_path}/missing cannot be read"),
        (["--tls-ca", key], "root_certificates holds no certificate in PEM"),
        (["--tls-cert", certificate], "private_key is missing"),
    ):
        said = cli("topology", "--router", "127.0.0.1:1", *flags, code=1)
        assert words in said.stderr


def test_a_name_that_cannot_be_looked_up_is_named_everywhere(mesh, checkpoint):
    mesh.start_router(checkpoint.path, nodes=["dns:///no-such-name.invalid:50061"])
    topology = mesh.watch(lambda topology: topology.lookup_error, "the look-up failed")
    assert "no-such-name.invalid" in topology.lookup_error
    assert mesh.router.metric("expertmesh_router_node_lookup_fails") == 1
    assert "no-such-name.invalid" in mesh.router.log()
    said = cli("topology", "--router", mesh.router.address).stdout
    assert "nodes cannot be looked up: cannot resolve no-such-name.invalid" in said
