"""`expertmesh generate` and `expertmesh evaluate` with the demo model, against real programs."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess

import pytest

from arrays import assert_same, assert_same_bits
from mesh import PATIENCE, Mesh, cli, program, shards

DEMO = pathlib.Path(__file__).parents[2] / "deploy" / "demo_model"
F32 = "--compute-dtype=f32"
PROMPT = "And it came to pass in the days of"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A mesh that serves the demo model: three nodes, each expert on two of them."""
    with Mesh(tmp_path_factory.mktemp("demo")) as mesh:
        yield mesh.start(DEMO, shards(3, "--replicas=2", F32), F32)


@pytest.fixture
def generate(demo):
    def run(*arguments, **options):
        where = ["--router", demo.router.address, "--model", DEMO]
        return cli("generate", *where, *arguments, **options)

    return run


def told(generate, path, *arguments):
    generate(*arguments, "--json", path)
    return json.loads(path.read_text())


def test_writes_recognisable_english(generate):
    text = generate("--prompt", PROMPT, "--max-tokens", 300, "--ignore-end").stdout
    words = re.findall(r"[A-Za-z]+", text)
    held_out = set(re.findall(r"[A-Za-z]+", (DEMO / "held_out.txt").read_text()))
    known = sum(word in held_out for word in words[1:-1])
    assert len(words) > 40
    assert known / len(words) > 0.9, text


def test_figures(generate, tmp_path):
    found = told(
        generate, tmp_path / "json", "--prompt", PROMPT, "--max-tokens", 50, "--ignore-end"
    )
    (sequence,) = found["sequences"]
    assert sequence["prompt"] == PROMPT and sequence["ended"] == "max_tokens"
    assert len(sequence["tokens"]) == found["tokens"] == 50
    assert bytes(token for token in sequence["tokens"]).decode() == sequence["text"]
    assert found["tokens_per_second"] == pytest.approx(50 / found["seconds"])
    assert sum(found["time_shares"].values()) == pytest.approx(1, abs=0.02)
    assert all(found["time_shares"][stage] > 0 for stage in ("attention", "experts", "wire"))
    assert [layer["layer"] for layer in found["layers"]] == [1, 2, 3, 4]
    read = len(PROMPT) + 50 - 1
    for layer in found["layers"]:
        # One call for the prompt, one for each token but the last.
        assert (layer["calls"], layer["tokens"]) == (50, read)
        assert len(layer["load"]) == 32 and sum(layer["load"]) == 4 * read
        mean = 4 * read / 32
        assert layer["max_violation"] == pytest.approx(max(layer["load"]) / mean - 1)
        assert 0 < layer["p50_ms"] <= layer["p99_ms"]


def test_report_is_for_people(generate):
    text = generate("--prompt", PROMPT, "--max-tokens", 20, "--echo", "--report").stdout
    assert text.startswith(PROMPT)
    assert re.search(r"20 tokens in [\d.]+ s: [\d.]+ tokens/s", text)
    assert re.search(r"time: attention \d+%, experts \d+%, wire \d+%", text)
    assert len(re.findall(r"^ +\d  +[\d.]+ +[\d.]+  [▁▂▃▄▅▆▇█·]{32}$", text, re.MULTILINE)) == 4


def test_sequences_beside_each_other_are_sequences_alone(generate, tmp_path):
    prompts = [PROMPT, "Thus saith", "The " * 200 + "king"]
    (tmp_path / "prompts").write_text("\n".join(prompts) + "\n")
    sample = [
        "--max-tokens",
        40,
        "--temperature",
        0.8,
        "--top-k",
        50,
        "--top-p",
        0.95,
        "--ignore-end",
    ]
    together = told(generate, tmp_path / "json", "--prompt-file", tmp_path / "prompts", *sample)
    for seed, prompt in enumerate(prompts):
        own = ["--prompt", prompt, "--seed", seed]
        alone = told(generate, tmp_path / "json", *own, *sample)
        one, beside = alone["sequences"][0], together["sequences"][seed]
        assert_same(one.pop("tokens"), beside.pop("tokens"), prompt[:20])
        assert one == beside


def test_several_sequences_come_line_by_line(generate):
    text = generate(
        "--prompt", PROMPT, "--sequences", 3, "--temperature", 1, "--max-tokens", 150
    ).stdout
    assert all(re.match(r"\[[123]\] ", line) for line in text.splitlines())
    assert {line[1] for line in text.splitlines()} == {"1", "2", "3"}


@contextlib.contextmanager
def writing(demo, *flags):
    """(process, text): a program that writes 900 tokens, and a file with what it writes.

    It writes to a socket of little room, and so is never far ahead of who reads, however long that takes.
    """
    command = [program("cli"), "generate", "--router", demo.router.address, "--model", str(DEMO)]
    command += ["--prompt", PROMPT, "--max-tokens", "900", "--ignore-end", *map(str, flags)]
    reader, writer = socket.socketpair()
    writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # The kernel makes it its smallest.
    with reader.makefile("rb") as text:
        reader.close()  # The file is what is left of it.
        with subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE) as running:
            writer.close()
            try:
                yield running, text
            finally:
                running.kill()


def test_text_comes_as_it_is_made(demo):
    def tokens():
        return demo.router.metric("expertmesh_router_tokens_total")

    before = tokens()
    with writing(demo) as (running, text):
        assert len(text.read(10)) == 10
        running.kill()
        running.wait()
    # Each token goes through four MoE layers. Had the text come at once, all of it had been made by then.
    assert tokens() - before < 4 * 600


def test_stops_when_nobody_reads(demo):
    with writing(demo) as (running, text):
        text.read(10)
        text.close()
        assert running.wait(PATIENCE) == 1
        assert b"standard output cannot be written" in running.stderr.read()


def test_a_full_disk_is_an_error(demo):
    command = [program("cli"), "generate", "--router", demo.router.address, "--model", str(DEMO)]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*command, "--prompt", PROMPT], stdout=full, stderr=subprocess.PIPE, timeout=PATIENCE
        )
    assert done.returncode == 1 and b"standard output cannot be written" in done.stderr


def test_chat_goes_on_from_all_of_it(generate, tmp_path):
    ask = ["--chat", "--max-tokens", 40, "--ignore-end"]
    said = generate(*ask, text="And Moses said\n\nWhat is this?\n").stdout
    first = told(generate, tmp_path / "json", "--prompt", "And Moses said", *ask[1:])
    before = "And Moses said" + first["sequences"][0]["text"] + "\nWhat is this?"
    second = told(generate, tmp_path / "json", "--prompt", before, *ask[1:])
    assert said == first["sequences"][0]["text"] + "\n" + second["sequences"][0]["text"] + "\n"


def test_chat_says_when_it_forgets(generate):
    lines = ("a" * 400 + "\n") * 3
    said = generate("--chat", "--max-tokens", 100, "--ignore-end", text=lines)
    assert said.stderr.count("the context is full") == 1
    assert len(said.stdout.splitlines()) >= 3


def test_chat_survives_a_bad_line(generate, tmp_path):
    ask = ["--chat", "--max-tokens", 20, "--ignore-end"]
    said = generate(*ask, text="a" * 2000 + "\nAnd Moses said\n")
    assert "overflows" in said.stderr
    alone = told(generate, tmp_path / "json", "--prompt", "And Moses said", *ask[1:])
    assert said.stdout == alone["sequences"][0]["text"] + "\n"


def test_bench_compares_with_this_process(generate, tmp_path):
    done = generate("--bench", "--max-tokens", 8, "--rounds", 1, "--json", tmp_path / "json")
    found = json.loads((tmp_path / "json").read_text())
    assert [line["sequences"] for line in found["results"]] == [1, 4, 16]
    for line in found["results"]:
        mesh, process = line["mesh_tokens_per_second"], line["in_process_tokens_per_second"]
        assert line["ratio"] == pytest.approx(mesh / process)
        assert f"{line['ratio']:.2f}" in done.stdout


def test_evaluate_gives_the_figures_of_training(demo, tmp_path):
    """Those of training.json are torch's, over all that was held out; this is a tenth of it."""
    recorded = json.loads((DEMO / "training.json").read_text())
    (tmp_path / "text").write_text((DEMO / "held_out.txt").read_text()[:25000])
    where = ["--router", demo.router.address, "--model", DEMO, "--text", tmp_path / "text"]
    cli("evaluate", *where, "--json", tmp_path / "json")
    found = json.loads((tmp_path / "json").read_text())
    assert found["bytes"] == 24999
    assert found["bits_per_byte"] == pytest.approx(recorded["bits_per_byte"], abs=0.15)
    for layer in found["layers"]:
        assert layer["max_violation"] < recorded["max_violation"][str(layer["layer"])] + 0.5


def test_a_node_that_dies_costs_no_token(tmp_path):
    with Mesh(tmp_path) as mesh:
        mesh.start(DEMO, shards(2, "--replicas=2", F32), F32)
        with writing(mesh) as (running, text):
            expected = text.read()
            assert running.wait(PATIENCE) == 0
        with writing(mesh) as (running, text):
            begin = text.read(5)
            mesh.nodes[0].kill()
            assert running.poll() is None, "the node died too late for this test to say anything"
            written = begin + text.read()
            assert running.wait(PATIENCE) == 0, running.stderr.read()
        assert_same_bits(written, expected)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_router_that_goes_away_is_an_error(tmp_path, number):
    with Mesh(tmp_path) as mesh:
        mesh.start(DEMO, shards(1, F32), F32)
        with writing(mesh, "--json", tmp_path / "json") as (running, text):
            text.read(5)
            mesh.router.signal(number)
            mesh.router.wait()
            rest = text.read()
            error = running.stderr.read().decode()
            assert running.wait(PATIENCE) == 1
        assert "not whole" in error and "MoE layer" in error, error
        assert len(rest) < 900
        # Figures of half a text would pass for those of a whole one.
        assert not (tmp_path / "json").exists()


def refused(*arguments, code=1):
    return cli(*arguments, code=code).stderr


def test_bad_prompts(generate, tmp_path):
    assert "--prompt" in generate("--prompt", "", code=2).stderr
    assert "--prompt" in generate("--max-tokens", 5, code=1).stderr
    (tmp_path / "prompts").write_text("one\n\nthree\n")
    assert "line 2" in generate("--prompt-file", tmp_path / "prompts", code=1).stderr
    assert "nowhere" in generate("--prompt-file", "/nowhere", code=1).stderr
    long = generate("--prompt", "a" * 1025, code=1).stderr
    assert "context" in long and "1024" in long
    overflow = generate("--prompt", "a" * 1000, "--max-tokens", 100, code=1)
    assert "at most 25" in overflow.stderr and overflow.stdout == ""


@pytest.mark.parametrize(
    "arguments,word",
    [
        (["--temperature", "-1"], "--temperature"),
        (["--top-p", "0"], "top-p is 0"),
        (["--top-p", "1.5"], "top-p is 1.5"),
        (["--max-tokens", "0"], "--max-tokens"),
        (["--sequences", "0"], "--sequences"),
        (["--tokenizer", "morse"], "--tokenizer"),
        (["--local"], "--router"),
        (["--threads", "100000"], "--threads"),
        (["--sequences", "2000"], "--sequences is 2000"),
        (["--chat"], "--prompt has no effect with --chat"),
        (["--bench", "--report"], "--report has no effect with --bench"),
    ],
)
def test_bad_options(demo, arguments, word):
    done = subprocess.run(
        [program("cli"), "generate", "--router", demo.router.address, "--model", DEMO]
        + ["--prompt", "x", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode in (1, 2) and word in done.stderr, done.stderr
    assert done.stdout == ""


def synthetic(folder, family):
    sizes = ["--layers", 2, "--d-model", 64, "--experts", 8, "--intermediate", 32, "--vocab", 128]
    cli("checkpoint", "make", "--output", folder, "--family", family, "--dtype", "f32", *sizes)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A model of 128 tokens without a tokenizer."""
    folder = tmp_path_factory.mktemp("small") / "model"
    return synthetic(folder, "deepseek_v2")


def test_bytes_outside_the_vocabulary(small):
    ask = ["generate", "--local", "--model", small, "--max-tokens", 3]
    assert "tokenizer.json" in refused(*ask, "--prompt", "abc")
    by_bytes = [*ask, "--tokenizer", "bytes"]
    cli(*by_bytes, "--prompt", "abc")
    error = refused(*by_bytes, "--prompt", "ab\u00e9")
    # U+00E9 is C3 A9, from offset 2.
    assert re.search(r"0xc3\b.*offset 2\b", error, re.IGNORECASE), error


def test_models_that_cannot_be_decoded(tmp_path, small):
    other = synthetic(tmp_path / "gpt_oss", "gpt_oss")
    ask = ["generate", "--local", "--prompt", "x", "--tokenizer", "bytes", "--model"]
    error = refused(*ask, other, code=3)
    assert "gpt_oss" in error and "mixtral" in error and "attach" in error
    unknown = tmp_path / "unknown"
    shutil.copytree(small, unknown)
    config = json.loads((unknown / "config.json").read_text())
    config |= {"model_type": "perceptron", "architectures": ["Perceptron"]}
    (unknown / "config.json").write_text(json.dumps(config))
    assert "perceptron" in refused(*ask, unknown)
    assert "/nowhere" in refused(*ask, "/nowhere")


def test_another_checkpoint_than_the_meshs(demo, small):
    error = refused(
        *["generate", "--router", demo.router.address, "--model", small, "--prompt", "x"]
    )
    assert "fingerprint" in error


def test_no_router():
    error = refused("generate", "--router", "127.0.0.1:1", "--model", DEMO, "--prompt", "x")
    assert "127.0.0.1:1" in error


def test_evaluate_refuses_what_it_cannot_read(demo, tmp_path):
    ask = ["evaluate", "--router", demo.router.address, "--model", DEMO]
    (tmp_path / "short").write_text("a")
    assert "at least 2" in refused(*ask, "--text", tmp_path / "short")
    assert "--text" in refused(*ask)
    assert "257" in refused(*ask, "--tokens", "1,257")
    assert "'x'" in refused(*ask, "--tokens", "1,x")
    assert "1024" in refused(*ask, "--text", DEMO / "held_out.txt", "--window", 2000)
    assert os.listdir(tmp_path) == ["short"]
