"""What deploy/local.sh does with a mesh once everything is built: `up`, `down` and `status`."""

import contextlib
import dataclasses
import os
import pathlib
import socket
import subprocess
import sys

from supervisor import guide
from supervisor.process import (
    HOST,
    Interrupted,
    InterruptibleClock,
    Process,
    Service,
    stop_all,
)
from supervisor.state import State, try_lock

READY_SECONDS = 600
# From SIGTERM to SIGKILL.
GRACE_SECONDS = 15
# The exit status of `expertmesh generate` for a model of a kind that it cannot decode.
CANNOT_DECODE = 3


class Failure(Exception):
    """What went wrong and what helps, for the user."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Flags of deploy/local.sh, checked by it."""

    build: pathlib.Path
    model: str
    compute_dtype: str
    prompt: str
    nodes: int
    replicas: int
    port: int
    detach: bool


def find_program(build, name):
    """Where the build left a program."""
    for depth in range(4):
        for path in build.glob("*/" * depth + name):
            if path.is_file() and os.access(path, os.X_OK):
                return path
    raise Failure(f"no program {name} in {build}; run deploy/local.sh up")


def addresses(base, nodes):
    """mesh.json without the model: the router on `base`, nodes after it, metrics 100 above each."""
    return {
        "router": f"{HOST}:{base}",
        "nodes": [f"{HOST}:{base + 1 + i}" for i in range(nodes)],
        "metrics": f"{HOST}:{base + 100}",
        "node_metrics": [f"{HOST}:{base + 101 + i}" for i in range(nodes)],
    }


class LocalMesh:
    """A router and nodes on loopback, from their start to their end."""

    def __init__(self, options, state, clock):
        self._options = options
        self._state = state
        self._clock = clock
        self._addresses = addresses(options.port, options.nodes)
        self._command = find_program(options.build, "expertmesh")
        # The router last; those that were seen to end are no longer in it.
        self._watched = []
        self._wrote_text = False

    # --- Start -------------------------------------------------------------------------------------

    def _service(self, name, program, listen, metrics_listen, *flags):
        options = self._options
        argv = [find_program(options.build, program), "--model", options.model, *flags]
        argv += ["--compute-dtype", options.compute_dtype]
        log = self._state.logs / f"{name}.log"
        log.unlink(missing_ok=True)
        service = Service(name, argv, self._state.folder, log_file=log)
        service.listen, service.metrics_listen = listen, metrics_listen
        return service

    def _services(self):
        nodes = self._options.nodes
        threads = max(1, len(os.sched_getaffinity(0)) // nodes)
        places = zip(self._addresses["nodes"], self._addresses["node_metrics"])
        for i, (listen, metrics_listen) in enumerate(places):
            flags = ["--shard", f"{i}/{nodes}", "--replicas", self._options.replicas]
            flags += ["--node-id", f"node{i}", "--threads", threads]
            yield self._service(f"node{i}", "expertmesh-expert", listen, metrics_listen, *flags)
        flags = ["--nodes", ",".join(self._addresses["nodes"])]
        places = self._addresses["router"], self._addresses["metrics"]
        yield self._service("router", "expertmesh-router", *places, *flags)

    def start(self):
        guide.say(
            f"Starting {self._options.nodes} nodes and a router on {self._addresses['router']}"
        )
        for service in self._services():
            service.spawn()
            self._watched.append(service)
            self._state.record(service)
        self._state.write_mesh({**self._addresses, "model": self._options.model})

    @contextlib.contextmanager
    def _helper(self, name, *arguments, log_file=None):
        """`expertmesh` with these arguments, while it runs."""
        helper = Process(name, [self._command, *arguments], log_file).spawn()
        try:
            yield helper
        finally:
            stop_all([helper], GRACE_SECONDS)

    def wait_healthy(self, seconds=READY_SECONDS):
        """Returns once the router says that the mesh serves."""
        log = self._state.logs / "health.log"
        log.unlink(missing_ok=True)
        # The probe keeps to the limit itself; the deadline is for one that hangs.
        deadline = self._clock.now() + seconds + GRACE_SECONDS
        flags = ["--router", self._addresses["router"], "--wait", seconds]
        with self._helper("health", "health", *flags, log_file=log) as probe:
            while probe.running() and self._clock.now() < deadline:
                for service in self._watched:
                    if not service.running():
                        sys.stderr.write(service.last_words())
                        raise Failure(
                            f"{service.name} {service.ending()} while starting"
                            f" (whole output: {service.log_file})"
                        )
                self._clock.sleep(0.02)
            if probe.running() or probe.wait() != 0:
                sys.stderr.write(probe.last_words())
                raise Failure(
                    f"the mesh was not ready after {seconds} s (logs: {self._state.logs})"
                )

    # --- The main job ------------------------------------------------------------------------------

    def _attend(self, name, *arguments):
        """Runs `expertmesh` with its output on ours. Returns its exit status."""
        with self._helper(name, name, *arguments) as helper:
            while helper.running():
                self._clock.sleep(0.02)
            return helper.wait()

    def main_job(self):
        """Text, where that is possible; else batches of tokens through every layer, checked against a reference."""
        mesh = ["--router", self._addresses["router"], "--model", self._options.model]
        code = CANNOT_DECODE
        if os.path.exists(os.path.join(self._options.model, "tokenizer.json")):
            print()
            sampling = "--max-tokens 300 --temperature 0.7 --top-p 0.95 --seed 1".split()
            text = ["--prompt", self._options.prompt, *sampling, "--echo", "--report"]
            code = self._attend("generate", *mesh, *text)
            self._wrote_text = code == 0
            if code == CANNOT_DECODE:
                guide.say("No text of this model; sending batches of tokens instead")
        if code == CANNOT_DECODE:
            code = self._attend("demo", *mesh, "--callers", 4)
        if code != 0:
            raise Failure(f"the main job failed (logs: {self._state.logs})")

    def show_how_to_call(self):
        router = self._addresses["router"]
        print(f"\nThe mesh serves on {router}. State and logs: {self._state.folder}")
        if self._wrote_text:
            replicated = self._watched[0] if self._options.replicas > 1 else None
            guide.show_writing(self._command, router, self._options.model, replicated)
        guide.show_calling(router)

    # --- Serving -----------------------------------------------------------------------------------

    def serve(self):
        """Returns when `down` ends the mesh; fails when the router ends by itself."""
        print("Serving; Ctrl-C stops it.")
        while True:
            for service in [each for each in self._watched if not each.running()]:
                if self._state.stop_announced():
                    print("Stopped by deploy/local.sh down.")
                    return
                self._watched.remove(service)
                about = f"the {service.name}" if service.name == "router" else service.name
                about += f" {service.ending()} (log: {service.log_file})"
                if service.name == "router":
                    sys.stderr.write(service.last_words())
                    raise Failure(f"{about}; stopping the nodes")
                print(f"{about}; the rest goes on.", file=sys.stderr)
            self._clock.sleep(0.1)

    def stop(self):
        # The router goes first, so that it does not report nodes as lost.
        stop_all(self._watched[::-1], GRACE_SECONDS)
        self._state.clear()


# --- The actions of deploy/local.sh ------------------------------------------------------------------


def _refuse_running(state):
    if state.running():
        raise Failure(
            f"a mesh is running in {state.folder}; stop it with deploy/local.sh down,"
            " or give another --state"
        )


def _lock(state, descriptor, seconds):
    if not try_lock(descriptor, seconds):
        raise Failure(
            f"another deploy/local.sh up is at work on {state.folder}; stop that one with Ctrl-C"
        )


def _refuse_ports_in_use(base, nodes):
    wanted = addresses(base, nodes)
    for place in (wanted["router"], *wanted["nodes"], wanted["metrics"], *wanted["node_metrics"]):
        port = int(place.rpartition(":")[2])
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            raise Failure(
                f"port {port} of {HOST} is in use;"
                " stop what listens there or choose others with --port"
            )


def claim(folder, base, nodes, lock_descriptor, lock_seconds=10):
    """Before anything is built: refuses a state folder or ports that are in use. The lock is the descriptor's, so
    it outlives this process where the caller's copy stays open."""
    state = State(folder)
    _refuse_running(state)
    _lock(state, lock_descriptor, lock_seconds)
    # One that held the lock until now may have left a mesh.
    _refuse_running(state)
    _refuse_ports_in_use(base, nodes)
    return 0


def up(folder, options):
    """Starts a mesh, runs the main job and serves. Returns the exit status."""
    clock = InterruptibleClock()
    state = State(folder)
    state.prepare()
    mesh = LocalMesh(options, state, clock)
    leave_running = serving = False
    try:
        mesh.start()
        mesh.wait_healthy()
        mesh.main_job()
        mesh.show_how_to_call()
        if options.detach:
            print("It runs in the background; stop it with deploy/local.sh down.")
            leave_running = True
            return 0
        serving = True
        mesh.serve()
        return 0
    except Interrupted as interrupted:
        # Ctrl-C is how serving is meant to end; before that it is a start that failed.
        print("\nStopping." if serving else "")
        return 0 if serving else interrupted.exit_status
    finally:
        if not leave_running:
            mesh.stop()


def down(folder):
    state = State(folder)
    running = state.running()
    if running:
        state.announce_stop()
        stop_all(running[::-1], GRACE_SECONDS)
        state.clear()
        print(f"Stopped the mesh of {state.folder}.")
        return 0
    if state.lock_file.exists():
        # One that is still building has nothing to stop yet.
        with open(state.lock_file, "ab") as lock:
            _lock(state, lock.fileno(), 0)
    state.clear()
    print(f"Nothing is running in {state.folder}.")
    return 0


def status(folder, build):
    """0: all that was started runs. 3: nothing does."""
    state = State(folder)
    mesh = state.mesh()
    if mesh is None or not state.running():
        print(f"Nothing is running in {state.folder}.")
        return 3
    all_run = True
    for process in state.recorded():
        if process.running():
            print(f"{process.name}  pid {process.pid}")
        else:
            print(f"{process.name}  ended; see {state.logs / process.name}.log")
            all_run = False
    print()
    command = [find_program(build, "expertmesh"), "topology", "--router", mesh["router"]]
    code = subprocess.run(command, check=False).returncode
    return code or (0 if all_run else 1)
