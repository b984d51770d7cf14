"""The systems under measurement: a mesh of real programs, and the baselines. Each runs for as long as its group is
measured, so that runs of one can alternate with runs of the others."""

import json
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "integration"))

from expertmesh.v1.tensor_pb2 import Dtype  # pylint: disable=wrong-import-position
from mesh import OPTIONS, Mesh, Program, program, shards  # pylint: disable=wrong-import-position
from supervisor.process import Process, ProcessError  # pylint: disable=wrong-import-position

LAYER = 0


def cores():
    return len(os.sched_getaffinity(0))


def node_threads(nodes):
    """All cores for each, as is the default, so that the node with more of a batch can use what another leaves idle;
    but a single one where there are more nodes than cores."""
    return str(cores() if nodes <= cores() else 1)


def peak_bytes(pid):
    """Most memory that a process has had resident."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


class MeshSystem:
    """A router and its nodes, called by `expertmesh bench`."""

    def __init__(self, kind, model, folder, *router_flags, node_flags=()):
        self.name = kind.name
        self.kind = kind
        self.model = model
        self.folder = folder
        self.caller_peak = 0
        self.mesh = Mesh(folder)
        if kind.slices:
            held = [["--slice", f"{i}/{kind.nodes}"] for i in range(kind.nodes)]
        else:
            held = shards(kind.nodes, "--replicas", kind.replicas)
        threads = node_threads(kind.nodes)
        node_flags = [[*flags, *node_flags, "--threads", threads] for flags in held]
        wire = [f"--wire-{rows}={kind.wire}" for rows in ("hidden-states", "partials")]
        self.mesh.start(model, node_flags, "--threads", str(cores()), *wire, *router_flags)
        self.row_dtypes = self._row_dtypes()

    def _row_dtypes(self):
        """Types of rows as the router reports them: see schema.py."""
        client = self.mesh.client
        (links,) = {
            (node.hidden_states_dtype, node.partials_dtype) for node in client.topology().nodes
        }
        found = (client.describe().activation_dtype, *links)
        return [Dtype.Name(dtype).removeprefix("DTYPE_").lower() for dtype in found]

    def _counters(self):
        """Bytes received and sent, of the router and of all nodes, tokens that the router took, and nodes that it
        sent them to, or would have if it drew replicas at random."""
        name = "expertmesh_process_message_bytes_total"
        router, nodes = self.mesh.router, self.mesh.nodes
        values = [router.metric(name, direction=direction) for direction in ("received", "sent")]
        for direction in ("received", "sent"):
            values.append(sum(node.metric(name, direction=direction) for node in nodes))
        for name in ("tokens", "planned_tokens", "token_transfers", "uniform_token_transfers"):
            values.append(router.metric(f"expertmesh_router_{name}_total"))
        return values

    def measure(self, cell, seconds, rate, _sizes):
        out = self.folder / "bench.json"
        pids = [str(process.process.pid) for process in self.mesh.programs]
        command = [
            *(program("cli"), "bench", "--router", self.mesh.router.address, "--model", self.model),
            *("--tokens", cell.tokens, "--routing", cell.routing, "--callers", cell.callers),
            *("--duration", seconds, "--json", out, "--latencies", "--pids", ",".join(pids)),
        ]
        if rate:
            command += ["--rate", rate]
        if self.kind.wire == "int8":
            command.append("--int8")
        before = self._counters()
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
        received, sent, to_nodes, from_nodes, tokens, planned, transfers, uniform = (
            after - earlier for after, earlier in zip(self._counters(), before)
        )
        result = json.loads(out.read_text())
        self.caller_peak = max(self.caller_peak, result["caller_peak_bytes"])
        (layer,) = result["layers"]
        # What the router received is its callers' and its nodes' together.
        hops = (received - from_nodes, sent - to_nodes, to_nodes, from_nodes)
        layer["hop_bytes_per_token"] = [hop / tokens for hop in hops]
        layer["bytes_per_token"] = sum(hops) / tokens
        layer["destinations_per_token"] = transfers / planned
        layer["uniform_destinations_per_token"] = uniform / planned
        return layer

    def memory(self):
        peaks = {each.name: peak_bytes(each.process.pid) for each in self.mesh.programs}
        return {**peaks, "caller": self.caller_peak}

    def close(self):
        self.mesh.__exit__(None, None, None)


class Baseline:
    """A caller that is told what to do line by line, and its servers."""

    def __init__(self, name, model, folder):
        self.name = name
        self.kind = None
        self.row_dtypes = []
        self.folder = folder
        self.model = model
        self.servers = []
        self.caller_peak = 0
        command = self._caller_command(self._start_servers())
        self.caller = Process(name, command, folder / f"{name}.log", **OPTIONS)
        self.caller.spawn(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._read()

    def _command(self, role, *flags):
        binary = program("bench_baselines")
        return [binary, "--role", role, "--model", str(self.model), "--layer", str(LAYER), *flags]

    def _caller_command(self, addresses):
        threads = str(cores() if self.name == "in_process" else 1)
        flags = ["--target", self.name, "--threads", threads, "--addresses", ",".join(addresses)]
        return self._command("caller", *flags)

    def _serve(self, role, *flags):
        name = f"{self.name}-{role}{len(self.servers)}"
        server = Program(name, self._command(role, *flags), self.folder).start()
        self.servers.append(server)
        return server.address

    def _start_servers(self):
        if self.name.startswith("rpc_per_"):
            # As many processes and threads as the mesh that it is compared with.
            return [
                self._serve("experts", "--shard", f"{i}/2", "--threads", node_threads(2)) for i in range(2)
            ]
        kind = {"two_bare_hops": "grpc", "raw_tcp": "tcp"}.get(self.name)
        if kind is None:
            return []
        echo = self._serve(f"{kind}_echo")
        return [self._serve(f"{kind}_forward", "--addresses", echo)]

    def _read(self):
        line = self.caller.process.stdout.readline()
        if not line:
            self.caller.wait()
            raise ProcessError(f"the caller of {self.name} {self.caller.ending()}:\n{self.caller.log()}")
        return line

    def measure(self, cell, seconds, _rate, sizes):
        command = {
            "tokens": cell.tokens,
            "routing": cell.routing,
            "callers": cell.callers,
            "seconds": seconds,
            "pids": [server.process.pid for server in self.servers],
        }
        moves_bytes = self.name in ("two_bare_hops", "raw_tcp")
        if moves_bytes:
            command["sizes"] = [round(size * cell.tokens) for size in sizes]
        self.caller.process.stdin.write(json.dumps(command) + "\n")
        self.caller.process.stdin.flush()
        result = json.loads(self._read())
        self.caller_peak = max(self.caller_peak, result["caller_peak_bytes"])
        tokens = result["requests"] * cell.tokens
        result["tokens_per_second"] = tokens / result["seconds"]
        # The bytes of hop two are told to it, not counted by it.
        result["bytes_per_token"] = sum(sizes) if moves_bytes else result["caller_bytes"] / tokens
        return result

    def memory(self):
        peaks = {each.name: peak_bytes(each.process.pid) for each in self.servers}
        return {**peaks, "caller": self.caller_peak}

    def close(self):
        self.caller.process.stdin.close()
        self.caller.wait()
        self.caller.process.stdout.close()
        # Forwarders before what they forward to.
        for server in reversed(self.servers):
            server.stop()


class GgmlRpc(Baseline):
    """The same layer, of random weights, behind ggml's RPC backend: one server that computes on all cores."""

    def __init__(self, shape, folder):
        self.shape = shape
        super().__init__("ggml_rpc", None, folder)

    def _command(self, role, *flags):
        return [program("bench_ggml"), "--role", role, *flags]

    def _start_servers(self):
        return [self._serve("server", "--threads", str(cores()))]

    def _caller_command(self, addresses):
        shape = self.shape
        sizes = {"d-model": shape.d_model, "intermediate": shape.intermediate}
        sizes.update({"experts": shape.experts, "top-k": shape.top_k})
        flags = [f"--{name}={value}" for name, value in sizes.items()]
        return self._command("caller", "--address", *addresses, *flags)


def ceilings(model, seconds):
    """What this machine can do at best."""
    done = subprocess.run(
        [program("bench_baselines"), "--role", "ceilings", "--model", str(model)]
        + ["--threads", str(cores()), "--seconds", str(seconds)],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)
