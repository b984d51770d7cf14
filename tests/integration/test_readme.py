"""Runs every README: each block marked bash, in order, from the top of the tree, each in a shell of its own.

A comment right before a block says what is special about it:

    <!-- test: interrupt after "Serving" -->    runs until it prints that; then Ctrl-C must end it well
    <!-- test: expect "tokens/s" -->            its output must have these words
    <!-- test: network -->                      needs more than package registries; run only when
                                                EXPERTMESH_README_NETWORK is set
    <!-- test: elsewhere tests/integration/test_x.py -->
                                                exercised by that file instead, which must name each
                                                program of the block

What the blocks start in the background must be stopped by a later block of the same README.
"""

import os
import re
import signal
import socket
import subprocess
import threading

import pytest

from mesh import poll_until
from readmes import ROOT, Block, commands_of, parse, programs, readmes

# A bound on one block, on a machine on which everything is built.
SECONDS = 1800


def run(block):
    """Runs a block; returns its output."""
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", block.text],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    watchdog = threading.Timer(SECONDS, os.killpg, (process.pid, signal.SIGKILL))
    watchdog.start()
    said = ""
    try:
        interrupted = False
        for line in process.stdout:
            said += line
            if block.kind == "interrupt" and block.words in line and not interrupted:
                interrupted = True
                os.killpg(process.pid, signal.SIGINT)
        code = process.wait()
    finally:
        watchdog.cancel()
    assert code == 0, f"{block}: exit status {code}\n{block.text}\n{said}"
    if block.kind == "interrupt":
        assert interrupted, f"{block}: never printed {block.words!r}\n{said}"
    if block.kind == "expect":
        assert block.words in said, f"{block}: {block.words!r} is not in\n{said}"
    return said


def test_there_are_commands():
    assert commands_of("README.md")
    assert sum(len(commands_of(file)) for file in readmes()) > 20


# Those of deploy/local.sh: router, nodes and their metrics.
PORTS = (*range(50050, 50056), *range(50150, 50156))
# A connection that is over keeps its port for a minute.
PORT_SECONDS = 90


def ports_are_free():
    """They lie among those that the system gives to connections, which keep them for a while after their end."""
    for port in PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


@pytest.mark.parametrize("file", [file for file in readmes() if commands_of(file)])
def test_every_command_works(file):
    for block in commands_of(file):
        if block.kind == "elsewhere":
            other = (ROOT / block.words).read_text()
            for name in programs(block):
                assert name in other, f"{block}: {block.words} does not run {name}"
        elif block.kind != "network" or os.environ.get("EXPERTMESH_README_NETWORK"):
            if re.search(r"^deploy/local.sh( up|$)", block.text, re.MULTILINE):
                poll_until(ports_are_free, PORT_SECONDS)
            run(block)


SAMPLE = """
Text.
<!-- test: expect "hello" -->
```bash
echo hello \\
  world
```
```python
print("not ours")
```
<!-- test: interrupt after "ready" -->

Text between takes the marker away.
```bash
true
```
<!-- test: interrupt after "ready" -->
```bash
trap 'exit 0' INT; echo ready; while true; do sleep 0.05; done
```
"""


def test_blocks_are_found():
    first, python, second, third = parse(SAMPLE)
    assert (first.kind, first.words, first.line) == ("expect", "hello", 4)
    assert (python.language, python.kind) == ("python", "")
    assert (second.kind, second.text) == ("", "true")
    assert (third.kind, third.words) == ("interrupt", "ready")
    assert programs(first) == {"echo"}
    for block in (first, second, third):
        run(block)


@pytest.mark.parametrize(
    "block",
    [
        Block(1, "false; true"),
        Block(1, "false | true"),
        Block(1, "echo a", kind="expect", words="b"),
        Block(1, "echo a", kind="interrupt", words="b"),
    ],
)
def test_blocks_that_fail(block):
    with pytest.raises(AssertionError, match="README.md:1"):
        run(block)
