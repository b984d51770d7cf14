"""deploy/observability on this machine, for the suites that send something there."""

import json
import os
import pathlib
import re
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request

import pytest

from mesh import PATIENCE

ROOT = pathlib.Path(__file__).parents[2]
UP = ROOT / "deploy" / "observability" / "up.sh"
# What up.sh's first line of each service says.
LINE = re.compile(r"^(\w+) +(http://127\.0\.0\.1:\d+)", re.MULTILINE)


def run_up(*arguments, code=0):
    done = subprocess.run(
        [UP, *arguments], capture_output=True, text=True, timeout=20 * PATIENCE, check=False
    )
    assert done.returncode == code, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def free_ports(count):
    """The first of `count` ports in a row that nothing listens on."""
    for base in range(20000 + os.getpid() % 10000, 60000, count):
        with socket.socket() as probe:
            probe.settimeout(1)
            if all(probe.connect_ex(("127.0.0.1", base + i)) for i in range(count)):
                return base
    raise AssertionError("no ports are free")


class Stack:
    """Addresses are those that up.sh printed."""

    def __init__(self, folder):
        self.folder = folder
        self.mesh = folder / "mesh"
        self.flags = ["--state", str(folder / "state"), "--mesh", str(self.mesh)]
        self.flags += ["--port", str(free_ports(9))]
        # Nothing is kept but what a policy of the collector speaks for.
        self.said = run_up("--detach", "--sample", "0", "--decision-wait", "2", *self.flags)
        self.at = dict(LINE.findall(self.said))

    def get(self, service, path, **query):
        """The JSON at that path; None where there is none."""
        url = f"{self.at[service]}{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            assert error.code == 404, f"{url}: {error.code} {error.read()}"
            return None

    def jaeger(self, trace_id):
        """Spans of a trace, as OTLP's JSON; [] where there is none."""
        found = self.get("jaeger", f"/api/v3/traces/{trace_id}")
        groups = found["result"]["resourceSpans"] if found else []
        return [each for g in groups for scope in g["scopeSpans"] for each in scope.get("spans", [])]

    def zipkin(self, trace_id):
        """Spans of a trace in Zipkin's form; [] where there is none."""
        return self.get("zipkin", f"/api/v2/trace/{trace_id}") or []

    def prometheus(self, query):
        """Values by labels."""
        answer = self.get("prometheus", "/api/v1/query", query=query)
        return [(each["metric"], float(each["value"][1])) for each in answer["data"]["result"]]

    def stop(self):
        run_up("down", *self.flags)


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    made = Stack(tmp_path_factory.mktemp("observability"))
    try:
        yield made
    finally:
        made.stop()


def plain(attributes):
    """A dict of OTLP's JSON attributes; its integers are strings."""
    return {each["key"]: next(iter(each["value"].values())) for each in attributes}
