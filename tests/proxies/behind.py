"""Two routers that share their nodes, a proxy before them, and a relay that holds answers back."""

import asyncio
import pathlib
import re
import socket
import sys
import threading

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "integration"))

# pylint: disable=wrong-import-position
import programs
from mesh import Mesh, cli, program
from supervisor.process import HOST, Process, poll_until

PAGE = ROOT / "deploy" / "proxies"
DEFAULTS = pathlib.Path(__file__).parent / "defaults"
# What the configurations say, in this order.
WRITTEN = ("127.0.0.1:50000", "127.0.0.1:50050", "127.0.0.1:50051")
D_MODEL = 1024
# Served directly, and through the relay.
FAST_LAYER, HELD_LAYER = 0, 1


def free_port():
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        return taken.getsockname()[1]


def spellings(address):
    """An address in each form that a configuration has it in, and a template to write another one."""
    host, port = address.split(":")
    yield address, "{}:{}"
    yield f"{host},{port}", "{},{}"
    yield f"address: {host}, port_value: {port}", "address: {}, port_value: {}"


def at(text, addresses):
    """A configuration with other addresses than the written ones."""
    for old, new in zip(WRITTEN, addresses):
        for spelling, template in spellings(old):
            text = re.sub(rf"{re.escape(spelling)}\b", template.format(*new.split(":")), text)
    return text


class Proxy(Process):
    """One proxy that runs with the files of `source`."""

    def __init__(self, name, source, folder, routers):
        self.kind = programs.KINDS[name]
        self.address = f"{HOST}:{free_port()}"
        self.folder = folder / f"{name}-{source.name}"
        self.folder.mkdir()
        for file in self.kind.files:
            text = at((source / file).read_text(), [self.address, *routers])
            (self.folder / file).write_text(self._local(text))
        first = self.folder / self.kind.files[0]
        arguments = [part.format(first) if "{}" in part else part for part in self.kind.argv]
        arguments = [part.replace("{folder}", str(self.folder)) for part in arguments]
        argv = [programs.find(name), *arguments]
        super().__init__(
            name, argv, self.folder / "log", patience=30, die_with_parent=True
        )

    def _local(self, text):
        """Files beside the configuration, instead of where an installed proxy has them."""
        text = text.replace("filename: ", f"filename: {self.folder}/")
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        folders = " ".join(f"{kind}_temp_path {self.folder}/{kind};" for kind in kinds)
        return re.sub(r"^http \{$", f"http {{ {folders}", text, flags=re.MULTILINE)

    def command(self):
        settings = programs.environment()
        changed = [f"{name}={settings[name]}" for name in ("LD_LIBRARY_PATH", "XDG_DATA_HOME")]
        return ["env", *changed, *self.argv]

    def start(self):
        self.spawn()
        if not poll_until(lambda: not self.running() or self._listens(), self.patience):
            raise RuntimeError(f"{self.name} does not listen on {self.address}:\n{self.log()}")
        if not self.running():
            raise RuntimeError(f"{self.name} {self.ending()}:\n{self.log()}")
        return self

    def _listens(self):
        host, port = self.address.split(":")
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0


class Relay:
    """Passes TCP on to a node. While it holds, what the node answers on connections that tensors took stays here;
    heartbeats have a connection of their own and pass, and so do answers to HTTP/2 pings."""

    MANY_BYTES = 100_000
    FRAME_HEADER = 9
    # DATA and HEADERS.
    ANSWERS = (0, 1)

    def __init__(self, target):
        self.target = target.split(":")
        self._loop = asyncio.new_event_loop()
        self._held = False
        # Writers and what they still have to write.
        self._kept = []
        started = threading.Event()
        threading.Thread(target=self._run, args=(started,), daemon=True).start()
        started.wait()

    def _run(self, started):
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, HOST, 0))
        self.address = f"{HOST}:{server.sockets[0].getsockname()[1]}"
        started.set()
        self._loop.run_forever()

    def hold(self, held):
        self._loop.call_soon_threadsafe(self._hold, held)

    def _hold(self, held):
        self._held = held
        if not held:
            for writer, frame in self._kept:
                writer.write(frame)
            self._kept.clear()

    async def _serve(self, reader, writer):
        node_reader, node_writer = await asyncio.open_connection(*self.target)
        asked = [0]
        await asyncio.gather(
            self._ask(reader, node_writer, asked),
            self._answer(node_reader, writer, asked),
            return_exceptions=True,
        )

    async def _ask(self, reader, writer, asked):
        try:
            while data := await reader.read(1 << 20):
                asked[0] += len(data)
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    async def _answer(self, reader, writer, asked):
        try:
            while True:
                header = await reader.readexactly(self.FRAME_HEADER)
                frame = header + await reader.readexactly(int.from_bytes(header[:3], "big"))
                if self._held and header[3] in self.ANSWERS and asked[0] > self.MANY_BYTES:
                    self._kept.append((writer, frame))
                else:
                    writer.write(frame)
                    await writer.drain()
        finally:
            writer.close()


class TwoRouters(Mesh):
    """Layer 0 is on one node, layer 1 on another one that is reached through `relay`."""

    def __init__(self, folder):
        super().__init__(folder)
        self.routers = []
        self.relay = None

    def start_all(self, *router_flags):
        model = self.folder / "model"
        sizes = ["--layers", 2, "--d-model", D_MODEL, "--experts", 8, "--intermediate", 64]
        cli("checkpoint", "make", "--output", model, *sizes, "--dtype", "f32")
        self.start_nodes(model, [["--layers", FAST_LAYER], ["--layers", HELD_LAYER]])
        self.relay = Relay(self.nodes[1].address)
        addresses = ",".join([self.nodes[0].address, self.relay.address])
        for name in ("router-0", "router-1"):
            self.routers.append(self.start_router_named(name, model, addresses, *router_flags))
        return self.all_ready()

    def all_ready(self):
        for self.router in self.routers:
            self.wait_ready()
            self._client.close()
            self._client = None
        return self

    def start_router_named(self, name, model, nodes, *flags):
        argv = [program("router"), "--model", model, "--nodes", nodes, "--drain-timeout", "10s", *flags]
        return self._add(name, argv).start()

    @property
    def addresses(self):
        return [router.address for router in self.routers]
