"""Two routers behind nginx and HAProxy, installed here or unpacked, with the configurations of deploy/proxies and
streams that are short. All six proxies and long streams: build/venv/bin/python tests/proxies/run.py."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "proxies"), str(ROOT / "tests" / "ecosystems")]

# pylint: disable=wrong-import-position
import behind
import callers
import checks
import columns
import loss
import programs

SECONDS = 3
QUICK = ("nginx", "haproxy")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    with behind.TwoRouters(tmp_path_factory.mktemp("routers")) as made:
        yield made.start_all()


@pytest.fixture(scope="module", params=QUICK)
def proxy(request, mesh, tmp_path_factory):
    name = request.param
    try:
        programs.install([name])
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"{name} is not installed, and cannot be unpacked here: {error}")
    made = behind.Proxy(name, behind.PAGE, tmp_path_factory.mktemp("proxy"), mesh.addresses)
    made.start()
    try:
        checks.reached(made.address)
        yield made
    finally:
        made.kill()


@pytest.fixture
def caller(proxy):
    made = callers.RawCaller(proxy.address)
    yield made
    made.close()


@pytest.mark.parametrize("check", [checks.big, checks.errors, checks.metadata])
def test_calls_and_errors_pass(check, caller, mesh):
    outcome = check(caller, mesh)
    assert outcome.good, outcome


@pytest.mark.parametrize("check", [checks.active, checks.idle, checks.slow, checks.watch])
def test_streams_pass(check, caller, mesh):
    outcome = check(caller, mesh, SECONDS)
    assert outcome.good, outcome


@pytest.mark.parametrize("lose", [loss.kill, loss.drain], ids=["kill", "drain"])
def test_a_router_that_ends_loses_what_is_in_flight_at_most(lose, proxy, mesh):
    outcome = lose(callers.RawCaller, proxy.address, mesh)
    assert outcome.good, outcome


def test_without_a_ready_router_callers_see_what_is_missing(proxy, mesh):
    outcome = loss.not_ready(callers.RawCaller, proxy.address, mesh)
    assert outcome.good, outcome


@pytest.mark.parametrize("source", [behind.PAGE, behind.DEFAULTS], ids=["page", "defaults"])
@pytest.mark.parametrize("name", programs.KINDS)
def test_configurations_have_the_addresses(name, source):
    """All of them are replaced: none is missed for its spelling."""
    ports = ["61231", "61232", "61233"]
    text = "".join((source / file).read_text() for file in programs.KINDS[name].files)
    changed = behind.at(text, [f"127.0.0.1:{port}" for port in ports])
    assert all(port in changed for port in ports)
    written = "|".join(old.split(":")[1] for old in behind.WRITTEN)
    assert not re.search(rf"127\.0\.0\.1[:,]( port_value: )?({written})\b", changed)


def test_lines_of_checks_are_read():
    said = "unary yes\nbig no: too large: 5 bytes\ncompile n/a\nother yes\nwatch perhaps\n"
    assert columns.parse(said) == {
        "unary": ("yes", ""),
        "big": ("no", "too large: 5 bytes"),
        "compile": ("n/a", ""),
    }
