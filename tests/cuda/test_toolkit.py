"""deploy/cuda.sh: which toolkit is used, and what it says of those that are not. Toolkits here are folders of empty files
with an nvcc that tells a version; nothing is fetched."""

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "deploy/cuda.sh"


def toolkit(folder, version="13.0", without=()):
    files = ["include/cuda_runtime.h", "include/cublas_v2.h"]
    files += [f"lib64/lib{name}.so" for name in ("cudart", "cublas", "cublasLt")]
    for file in files:
        if file not in without:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).touch()
    nvcc = folder / "bin/nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {version}, V{version}.1'\n", encoding="utf-8")
    nvcc.chmod(0o755)
    return folder


@pytest.fixture(name="script")
def fixture_script(tmp_path):
    """Runs the script where nothing but what the test gives is a toolkit."""
    if pathlib.Path("/usr/local/cuda").exists():
        pytest.skip("this machine has a toolkit at a fixed place")

    def run(*command, **variables):
        path = [folder for folder in os.environ["PATH"].split(":") if not (pathlib.Path(folder) / "nvcc").exists()]
        environment = os.environ | {
            "PATH": ":".join([*variables.pop("first_on_path", []), *path]),
            "EXPERTMESH_CUDA_TOOLKIT": str(tmp_path / "own"),
            "CUDA_HOME": "",
            # A pip that were called would find nothing.
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": "",
        }
        return subprocess.run(
            command if len(command) > 1 else [SCRIPT, *command], env=environment | variables, capture_output=True, text=True, check=False
        )

    return run


def test_that_of_cuda_home_is_first(script, tmp_path):
    first, second = toolkit(tmp_path / "first"), toolkit(tmp_path / "second")
    done = script("find", CUDA_HOME=str(first), first_on_path=[str(second / "bin")])
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{first}\n", "")


def test_that_of_nvcc_on_path_is_found_through_links(script, tmp_path):
    real = toolkit(tmp_path / "cuda-13.0")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nvcc").symlink_to(real / "bin/nvcc")
    done = script("find", first_on_path=[str(tmp_path / "bin")])
    assert (done.returncode, done.stdout) == (0, f"{real}\n")


def test_the_own_one_is_last(script, tmp_path):
    own = toolkit(tmp_path / "own")
    assert script("find").stdout == f"{own}\n"
    of_system = toolkit(tmp_path / "system")
    assert script("find", CUDA_HOME=str(of_system)).stdout == f"{of_system}\n"


@pytest.mark.parametrize(
    "version, without, words",
    [
        ("11.8", (), "is CUDA 11.8, 12.8 or later is needed"),
        ("12.10", (), ""),
        ("13.0", ("include/cublas_v2.h",), "has no include/cublas_v2.h"),
        ("13.0", ("lib64/libcublasLt.so",), "has no libcublasLt.so"),
    ],
)
def test_what_lacks_something_is_passed_over_and_named(script, tmp_path, version, without, words):
    wanting = toolkit(tmp_path / "wanting", version, without)
    done = script("find", CUDA_HOME=str(wanting))
    if words:
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.splitlines() == [f"{SCRIPT}: {wanting} {words}"]
    else:
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{wanting}\n", "")


def test_none_is_an_error_of_find(script):
    done = script("find")
    assert (done.returncode, done.stdout) == (1, "")


def test_nothing_is_fetched_beside_a_toolkit_of_the_system(script, tmp_path):
    done = script("install", CUDA_HOME=str(toolkit(tmp_path / "system")))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "own").exists()


def test_a_failed_fetch_leaves_nothing_that_looks_whole(script, tmp_path):
    done = script("install")
    assert done.returncode == 1
    assert "nvidia-cuda-nvcc" in done.stdout and "failed" in done.stderr
    assert not (tmp_path / "own").exists()
    assert script("find").returncode == 1


def configure(script, folder, mode):
    return script("cmake", "-S", ROOT, "-B", folder / "build", "-DEXPERTMESH_TESTS=OFF", f"-DEXPERTMESH_CUDA={mode}")


def test_a_build_that_must_have_cuda_says_how_to_get_it(script, tmp_path):
    done = configure(script, tmp_path, "on")
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert "there is no CUDA toolkit; deploy/packages.sh install --cuda brings one" in said


def test_no_other_word_is_taken_for_one(script, tmp_path):
    done = configure(script, tmp_path, "yes")
    assert done.returncode == 1 and "EXPERTMESH_CUDA is yes; use auto, on or off" in done.stderr


def test_a_build_without_a_toolkit_is_one_without_cuda(script, tmp_path):
    done = configure(script, tmp_path, "auto")
    assert done.returncode == 0, done.stderr
    assert "CUDA: not built" in done.stdout


def test_off_is_off_beside_a_toolkit(script, tmp_path):
    toolkit(tmp_path / "own")
    assert "CUDA: not built" in configure(script, tmp_path, "off").stdout
