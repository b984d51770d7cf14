"""Runs the README: every block marked bash, in order, from the top of the tree, each in a shell of its own.

A comment right before a block says what is special about it:

    <!-- test: interrupt after "Serving" -->    runs until it prints that; then Ctrl-C must end it well
    <!-- test: expect "tokens/s" -->            its output must have these words
    <!-- test: network -->                      needs more than package registries; run only when
                                                EXPERTMESH_README_NETWORK is set
    <!-- test: elsewhere tests/integration/test_x.py -->
                                                exercised by that file instead, which must name each
                                                program of the block

What the blocks start in the background must be stopped by a later block.
"""

import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import threading

import pytest

ROOT = pathlib.Path(__file__).parents[2]
# A bound on one block, on a machine on which everything is built.
SECONDS = 1800


@dataclasses.dataclass
class Block:
    line: int
    text: str
    kind: str = ""
    words: str = ""


def parse(text):
    """The bash blocks of a Markdown text."""
    blocks, marker = [], ("", "")
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        if match := re.fullmatch(r"<!-- test: (\w+)(.*?) *-->", line.strip()):
            marker = (match[1], match[2].strip())
            marker = (marker[0], re.sub(r'^(after )?"(.*)"$', r"\2", marker[1]))
        elif line.startswith("```"):
            body = []
            for _, inside in lines:
                if inside.startswith("```"):
                    break
                body.append(inside)
            if line.strip() == "```bash":
                blocks.append(Block(number, "\n".join(body), *marker))
            marker = ("", "")
        elif line.strip():
            marker = ("", "")
    return blocks


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
    assert code == 0, f"README.md:{block.line}: exit status {code}\n{block.text}\n{said}"
    if block.kind == "interrupt":
        assert interrupted, f"README.md:{block.line}: never printed {block.words!r}\n{said}"
    if block.kind == "expect":
        assert block.words in said, f"README.md:{block.line}: {block.words!r} is not in\n{said}"
    return said


def programs(block):
    """First word of each command line of a block, without its folder."""
    text = re.sub(r"\\\n", " ", block.text)
    names = [line.split()[0] for line in text.splitlines() if line.strip() and line[0] not in " #"]
    return {pathlib.PurePath(name).name for name in names}


def test_every_command_works():
    blocks = parse((ROOT / "README.md").read_text())
    assert blocks, "README.md has no block marked bash"
    for block in blocks:
        if block.kind == "elsewhere":
            other = (ROOT / block.words).read_text()
            for name in programs(block):
                assert name in other, f"README.md:{block.line}: {block.words} does not run {name}"
        elif block.kind != "network" or os.environ.get("EXPERTMESH_README_NETWORK"):
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
    first, second, third = parse(SAMPLE)
    assert (first.kind, first.words, first.line) == ("expect", "hello", 4)
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
        Block(1, "echo a", "expect", "b"),
        Block(1, "echo a", "interrupt", "b"),
    ],
)
def test_blocks_that_fail(block):
    with pytest.raises(AssertionError, match="README.md:1"):
        run(block)
