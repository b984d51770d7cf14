"""The real module on a machine whose driver is missing: one line and no success with --device cuda:0, the CPU with
auto, whatever the absence looks like."""

import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "deploy"))

# pylint: disable-next=wrong-import-position
from supervisor.process import Service

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = os.environ["EXPERTMESH_EXPERT"]
MODULE = pathlib.Path(PROGRAM).parent / "libexpertmesh_cuda.so"
MODEL = ROOT / "deploy/demo_model"
# Bounds on hanging, not durations that a test needs.
SECONDS = 300

# What hides the GPU of a machine that has one.
HIDDEN = {"CUDA_VISIBLE_DEVICES": ""}


def run(*flags, program=PROGRAM, **variables):
    return subprocess.run(
        [program, "--model", MODEL, "--listen", "127.0.0.1:0", "--metrics-listen", "", "--log-level", "off", *flags],
        env=os.environ | HIDDEN | variables,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


# A driver that is there and answers nothing: a library of that name without its functions.
@pytest.fixture(name="hollow_driver")
def fixture_hollow_driver(tmp_path):
    (tmp_path / "hollow.c").write_text("int expertmesh_nothing;\n", encoding="utf-8")
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-o", tmp_path / "libcuda.so.1", tmp_path / "hollow.c"], check=True
    )
    return str(tmp_path)


def check_one_line(done):
    assert done.returncode == 1
    lines = (done.stdout + done.stderr).splitlines()
    assert len(lines) == 1, lines
    assert re.search(r"--device=cuda:0: .*(cudaGetDeviceCount|no GPU)", lines[0]), lines


def test_cuda_ends_with_one_line():
    check_one_line(run("--device", "cuda:0"))


def test_so_it_does_with_a_driver_that_has_no_functions(hollow_driver):
    check_one_line(run("--device", "cuda:0", LD_LIBRARY_PATH=hollow_driver))


def test_libraries_of_cuda_that_are_missing_are_named(tmp_path):
    """The module on a machine without the CUDA runtime: a copy that looks for it in an empty folder."""
    module = tmp_path / MODULE.name
    data = MODULE.read_bytes()
    assert b"libcudart.so." in data
    module.write_bytes(data.replace(b"libcudart.so.", b"libcudarx.so."))
    done = run("--device", "cuda:0", EXPERTMESH_CUDA_MODULE=str(module))
    assert done.returncode == 1
    (line,) = (done.stdout + done.stderr).splitlines()
    assert "libcudarx.so" in line and "install the CUDA runtime and cuBLAS" in line


def test_auto_computes_on_the_cpu(tmp_path):
    service = Service("node", [PROGRAM, "--model", MODEL, "--device", "auto"], tmp_path, patience=SECONDS)
    service.spawn(env=os.environ | HIDDEN).wait_bound()
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    log = service.log()
    assert "computing on the CPU: " in log and "BF16 by cpu" in log


def test_the_program_needs_no_library_of_cuda():
    needed = subprocess.run(["readelf", "-d", PROGRAM], capture_output=True, text=True, check=True).stdout
    assert "libstdc++" in needed and "libcu" not in needed


def test_the_module_finds_its_libraries_and_looks_nowhere_else():
    dynamic = subprocess.run(["readelf", "-d", MODULE], capture_output=True, text=True, check=True).stdout
    assert "[libcudart.so." in dynamic and "[libcublas.so." in dynamic
    (path,) = re.findall(r"Library r(?:un)?path: \[(.*)\]", dynamic)
    folders = path.split(":")
    assert folders[0] == "$ORIGIN" and all(folders), "an empty one would be the working directory"
    symbols = subprocess.run(["nm", "-D", "--defined-only", MODULE], capture_output=True, text=True, check=True).stdout
    assert "T ExpertmeshCudaModule" in symbols
    assert not re.search(r"[TW] \w*10expertmesh", symbols), symbols


def test_it_is_found_where_it_is_installed(tmp_path):
    build = os.environ["EXPERTMESH_BUILD"]
    subprocess.run(["cmake", "--install", build, "--prefix", tmp_path], check=True, capture_output=True)
    (installed,) = tmp_path.glob("lib*/**/expertmesh/libexpertmesh_cuda.so")
    done = run("--device", "cuda:0", program=tmp_path / "bin/expertmesh-expert")
    check_one_line(done)
    assert "cudaGetDeviceCount" in done.stderr
    installed.unlink()
    done = run("--device", "cuda:0", program=tmp_path / "bin/expertmesh-expert")
    assert "this program was built without CUDA" in done.stderr
