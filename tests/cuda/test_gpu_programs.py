"""What tests/run.sh --gpu runs, as far as it goes without a GPU: refusals, and everything with a stand-in for the module
that computes on the CPU."""

import html.parser
import json
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
GPU = ROOT / "tests/cuda/gpu"
PROGRAMS = pathlib.Path(os.environ["EXPERTMESH_BUILD"]) / "tests/cuda/gpu"
STAND_IN = {"EXPERTMESH_CUDA_MODULE": os.environ["EXPERTMESH_FAKE_CUDA_MODULE"]}
NO_GPU = STAND_IN | {"EXPERTMESH_FAKE_GPU": "devices=0"}
SHAPE = "tiny:8:2:64:32:1,16"


def run(*command, code=0, **variables):
    done = subprocess.run(
        [str(word) for word in command],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=1000,
    )
    assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def layers(*shapes):
    return run(PROGRAMS / "gpu-layers", "--seconds", "0.01", *shapes, **STAND_IN).stdout


@pytest.mark.skipif(pathlib.Path("/dev/nvidiactl").exists(), reason="this machine has a GPU")
def test_run_sh_refuses_politely_before_it_builds():
    done = run(ROOT / "tests/run.sh", "--gpu", code=1)
    assert done.stdout == ""
    assert done.stderr.splitlines() == ["tests/run.sh --gpu: this machine has no GPU of NVIDIA (no /dev/nvidiactl)"]


def test_the_script_ends_where_there_is_no_gpu():
    done = run(GPU / "run.sh", PROGRAMS.parents[2], code=1, **NO_GPU)
    assert "there is no GPU that this process can see" in done.stderr


def test_the_whole_script_with_the_stand_in(tmp_path):
    suite = PROGRAMS / "gpu_conformance_test"
    names = run(suite, "--gtest_list_tests").stdout
    assert all(f"/{case}  #" in names for case in ("bf16", "f32", "bf16_cublas", "f32_cublas"))
    sanitizer = tmp_path / "compute-sanitizer"
    sanitizer.write_text('#!/bin/sh\necho "sanitized $*"\n', encoding="utf-8")
    sanitizer.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    said = run(GPU / "run.sh", PROGRAMS.parents[2], SHAPE, **STAND_IN, PATH=path).stdout
    for tool in ("memcheck", "racecheck", "synccheck"):
        assert f"sanitized --tool {tool} --error-exitcode 9 {suite}" in said
    page = pathlib.Path(said.splitlines()[-1]).read_text(encoding="utf-8")
    assert "fixed-order on stand-in" in page and "cublas on stand-in" in page and "4000 GB/s, 1000 TFLOP/s" in page
    assert Cells(page).cells.count("tiny") == 4


def test_layers_say_what_they_measured():
    device, *lines = [json.loads(line) for line in layers(SHAPE).splitlines()]
    assert device["device"] == "stand-in" and device["product"] == "fixed-order"
    assert [line["tokens"] for line in lines] == [1, 16]
    parameters = 3 * 64 * 32
    for line in lines:
        flops = line["tokens"] * 2 * 2 * parameters
        assert line["flops"] * line["us"] / 1e6 == pytest.approx(flops)
        assert line["bytes_per_second"] * line["us"] / 1e6 == pytest.approx(
            line["experts_hit"] * 2 * parameters, rel=0.2  # As it is packed.
        )
    assert lines[0]["experts_hit"] == 2 and 2 < lines[1]["experts_hit"] <= 8


@pytest.mark.parametrize("shape", ["tiny:8:2:64:32", "tiny:8:9:64:32:1", "tiny:8:2:x:32:1"])
def test_a_bad_shape_is_refused(shape):
    done = run(PROGRAMS / "gpu-layers", shape, code=1, **STAND_IN)
    assert "is not name:experts:k:d_model:width:tokens" in done.stderr


class Cells(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.cells, self.inside = [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "td":
            self.inside = True
            self.cells.append("")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "td"

    def handle_data(self, data):
        if self.inside:
            self.cells[-1] += data


def test_the_page_has_shares_of_the_peak_and_predictions(tmp_path):
    device = {"device": "GPU <1>", "peak_bytes_per_second": 3.35e12, "peak_flops": 989.4e12}
    device |= {"product": "fixed-order", "version": "0.1.0"}
    line = {"shape": "Qwen3-30B", "tokens": 8, "us": 200.4, "experts_hit": 51.5}
    line |= {"bytes_per_second": 1.675e12, "flops": 9.894e12}
    left_out = {"shape": "DeepSeek-V3", "left_out": "no memory"}
    file = tmp_path / "gpu.jsonl"
    file.write_text("\n".join(map(json.dumps, (device, line, left_out))), encoding="utf-8")
    text = run("python3", GPU / "report.py", file).stdout
    predicted = next(
        row.split("|")[9].strip()
        for row in run("python3", ROOT / "tests/cuda/roofline.py").stdout.splitlines()
        if row.startswith("| Qwen3-30B | 8 |")
    )
    assert Cells(text).cells == [
        *("Qwen3-30B", "8", "200", predicted, "51.5", "1675", "50.0", "9.89", "1.0"),
        *("DeepSeek-V3", "left out: no memory"),
    ]
    assert "GPU &lt;1&gt;" in text


def test_shapes_are_those_of_the_roofline():
    shapes = run("python3", GPU / "report.py", "--shapes").stdout.splitlines()
    assert shapes[0] == "Qwen3-30B:128:8:2048:768:1,8,64,512" and len(shapes) == 3
    run("bash", "-n", GPU / "run.sh")
