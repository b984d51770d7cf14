"""The second half of deploy/observability/up.sh, which has checked the flags and built the programs: starts them, waits
until each is ready, and ends them."""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import socket
import sys
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

# pylint: disable=wrong-import-position
from supervisor.process import (
    HOST,
    Interrupted,
    InterruptibleClock,
    Process,
    ProcessError,
    poll_until,
    stop_all,
)
from supervisor.state import State, try_lock

READY_SECONDS = 600
# From SIGTERM to SIGKILL. The collector hands on what it holds.
GRACE_SECONDS = 15
# The one place where ports are chosen: of loopback, from --port on.
PORTS = (
    "COLLECTOR_GRPC",
    "COLLECTOR_HTTP",
    "COLLECTOR_METRICS",
    "COLLECTOR_HEALTH",
    "JAEGER_GRPC",
    "JAEGER_HTTP",
    "JAEGER_QUERY_GRPC",
    "ZIPKIN_HTTP",
    "PROMETHEUS_HTTP",
)


class Failure(Exception):
    """What went wrong and what helps, for the user."""


@dataclasses.dataclass(frozen=True)
class Service:
    """One of the programs. ready: answers 200 once it is. shown: what it is for, and where."""

    name: str
    argv: list
    ready: str
    shown: str


def addresses(base):
    """host:port by the names that configurations know them by."""
    return {name: f"{HOST}:{base + i}" for i, name in enumerate(PORTS)}


def versions():
    lines = (HERE / "versions").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=") for line in lines if not line.startswith("#"))


def find(cache, pattern):
    """What build.sh left."""
    found = sorted(cache.glob(pattern), key=lambda path: path.stat().st_mtime)
    if not found:
        raise Failure(f"there is no {cache / pattern}; deploy/observability/build.sh makes it")
    return found[-1]


def find_prometheus(cache):
    return shutil.which("prometheus") or find(cache, "prometheus/usr/bin/prometheus")


def services(cache, state, at, mesh):
    """The four of them, in the order in which they start."""
    known = versions()
    zipkin_port = at["ZIPKIN_HTTP"].rpartition(":")[2]
    zipkin = ["java", "-Xmx512m", "-jar", find(cache, f"zipkin-{known['zipkin']}/*.jar")]
    # Without the first it would listen on all addresses.
    zipkin += ["--armeria.ports[0].ip=" + HOST, "--armeria.ports[0].port=" + zipkin_port]
    zipkin += ["--armeria.ports[0].protocols[0]=http", "--spring.main.banner-mode=off"]
    prometheus = [find_prometheus(cache), f"--config.file={write_scrapes(state, at, mesh)}"]
    prometheus += [f"--web.listen-address={at['PROMETHEUS_HTTP']}"]
    prometheus += [f"--storage.tsdb.path={state.folder / 'prometheus' / 'data'}"]
    prometheus += ["--enable-feature=exemplar-storage", "--log.level=warn"]
    jaeger = find(cache, f"jaeger-{known['jaeger']}/jaeger")
    collector = find(cache, f"collector-{known['collector']}-*/collector")
    jaeger_http, zipkin_http = f"http://{at['JAEGER_HTTP']}", f"http://{at['ZIPKIN_HTTP']}"
    prometheus_http = f"http://{at['PROMETHEUS_HTTP']}"
    return [
        Service(
            "jaeger",
            [jaeger, f"--config={HERE / 'jaeger' / 'config.yaml'}"],
            f"{jaeger_http}/api/v3/services",
            f"{jaeger_http}  query API of traces with their links (it has no page)",
        ),
        Service("zipkin", zipkin, f"{zipkin_http}/health", f"{zipkin_http}/zipkin/  traces as a page"),
        Service(
            "collector",
            [collector, f"--config={HERE / 'collector' / 'config.yaml'}"],
            f"http://{at['COLLECTOR_HEALTH']}",
            f"http://{at['COLLECTOR_GRPC']}  spans by OTLP/gRPC (HTTP: {at['COLLECTOR_HTTP']})",
        ),
        Service("prometheus", prometheus, f"{prometheus_http}/-/ready", f"{prometheus_http}  metrics as a page"),
    ]


def write_scrapes(state, at, mesh):
    """Prometheus' configuration, with what it scrapes beside it. Returns its path."""
    folder = state.folder / "prometheus"
    folder.mkdir(parents=True, exist_ok=True)
    # Prometheus watches the folder; the file is there while the mesh is.
    mesh.mkdir(parents=True, exist_ok=True)
    for rules in (HERE / "prometheus").glob("*_rules.yaml"):
        shutil.copy(rules, folder)
    text = (HERE / "prometheus" / "prometheus.yaml").read_text(encoding="utf-8")
    config = folder / "prometheus.yaml"
    config.write_text(text.replace("[mesh.json]", json.dumps([str(mesh / "targets.json")])), encoding="utf-8")
    spans = [{"targets": [at["COLLECTOR_METRICS"]], "labels": {}}]
    (folder / "collector.json").write_text(json.dumps(spans), encoding="utf-8")
    return config


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except urllib.error.HTTPError as error:
        # The v3 API says 404 while there is no service yet.
        return error.code == 404
    except (OSError, ValueError):
        return False


class Stack:
    """The programs, from their start to their end."""

    def __init__(self, options, state, clock):
        self._options, self._state, self._clock = options, state, clock
        self._at = addresses(options.port)
        self._services = services(options.cache, state, self._at, options.mesh)
        self._running = []

    def start(self):
        os.environ.update(self._at)
        os.environ["DECISION_WAIT"] = f"{self._options.decision_wait}s"
        os.environ["SAMPLE_PERCENT"] = str(self._options.sample)
        for service in self._services:
            log = self._state.logs / f"{service.name}.log"
            log.unlink(missing_ok=True)
            process = Process(service.name, service.argv, log).spawn()
            self._running.append(process)
            self._state.record(process)

    def wait_ready(self, seconds=READY_SECONDS):
        deadline = self._clock.now() + seconds
        for service, process in zip(self._services, self._running):

            def ready(service=service, process=process):
                if not process.running():
                    sys.stderr.write(process.last_words())
                    raise Failure(f"{process.name} {process.ending()} (log: {process.log_file})")
                return answers(service.ready)

            left = max(1.0, deadline - self._clock.now())
            if not poll_until(ready, left, self._clock, interval=0.2):
                sys.stderr.write(process.last_words())
                raise Failure(f"{service.name} was not ready after {seconds} s (log: {process.log_file})")

    def show(self):
        width = max(len(service.name) for service in self._services)
        for service in self._services:
            print(f"{service.name:{width}}  {service.shown}")
        print(
            f"\nA mesh that sends its spans: OTEL_EXPORTER_OTLP_ENDPOINT=http://{self._at['COLLECTOR_GRPC']}"
            " deploy/local.sh up --detach"
        )

    def serve(self):
        print("Serving; Ctrl-C stops it.")
        while True:
            for process in self._running:
                if not process.running():
                    if self._state.stop_announced():
                        print("Stopped by deploy/observability/up.sh down.")
                        return
                    sys.stderr.write(process.last_words())
                    raise Failure(f"{process.name} {process.ending()}; stopping the rest")
            self._clock.sleep(0.2)

    def stop(self):
        stop_all(self._running[::-1], GRACE_SECONDS)
        self._state.clear()


def refuse_ports_in_use(base):
    for name, place in addresses(base).items():
        port = int(place.rpartition(":")[2])
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            raise Failure(
                f"port {port} of {HOST} ({name}) is in use; stop what listens there or choose others with --port"
            )


def up(options):
    state = State(options.state)
    state.logs.mkdir(parents=True, exist_ok=True)
    with open(state.lock_file, "ab") as lock:
        if not try_lock(lock.fileno(), 1):
            raise Failure(f"another up.sh is at work on {state.folder}")
        if state.running():
            raise Failure(f"it runs already in {state.folder}; stop it with deploy/observability/up.sh down")
        refuse_ports_in_use(options.port)
        clock = InterruptibleClock()
        state.prepare()
        stack = Stack(options, state, clock)
        leave_running = serving = False
        try:
            stack.start()
            stack.wait_ready()
            stack.show()
            leave_running = options.detach
            if not leave_running:
                serving = True
                stack.serve()
            return 0
        except Interrupted as interrupted:
            print("\nStopping." if serving else "")
            return 0 if serving else interrupted.exit_status
        finally:
            if not leave_running:
                stack.stop()


def down(options):
    state = State(options.state)
    running = state.running()
    if not running:
        state.clear()
        print(f"Nothing is running in {state.folder}.")
        return 0
    state.announce_stop()
    # The collector goes before what it exports to.
    stop_all(running[::-1], GRACE_SECONDS)
    state.clear()
    print(f"Stopped what ran in {state.folder}.")
    return 0


def status(options):
    """0: all run. 1: some ended. 3: nothing runs."""
    state = State(options.state)
    if not state.running():
        print(f"Nothing is running in {state.folder}.")
        return 3
    ended = 0
    for process in state.recorded():
        if process.running():
            print(f"{process.name}  pid {process.pid}")
        else:
            print(f"{process.name}  ended; see {state.logs / process.name}.log")
            ended = 1
    return ended


def main():
    parser = argparse.ArgumentParser(prog="up.sh", allow_abbrev=False)
    parser.add_argument("action", choices=("up", "down", "status"))
    for flag in ("--state", "--cache", "--mesh"):
        parser.add_argument(flag, type=pathlib.Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--decision-wait", type=float, required=True)
    parser.add_argument("--sample", type=float, required=True)
    parser.add_argument("--detach", action="store_true")
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)
    try:
        return {"up": up, "down": down, "status": status}[options.action](options)
    except (Failure, ProcessError, OSError) as error:
        print(f"up.sh: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
