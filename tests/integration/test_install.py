"""Installing what is built, and no more than that."""

import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What stands for it in a build folder -> what is installed.
PROGRAMS = {
    "expertmesh-router": "router_service",
    "expertmesh-expert": "expert_service",
    "expertmesh": "client/cpp",
}


def cmake(*arguments):
    done = subprocess.run(
        ["cmake", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def configured(tmp_path):
    """A build folder with nothing built."""
    folder = tmp_path / "build"
    cmake("-S", ROOT, "-B", folder, "-DEXPERTMESH_TESTS=OFF", "-DEXPERTMESH_CUDA=off")
    return folder


def install(folder):
    prefix = folder.parent / "installed"
    said = cmake("--install", folder, "--prefix", prefix)
    return said, {
        str(path.relative_to(prefix)) for path in prefix.rglob("*") if not path.is_dir()
    }


def built(program):
    name = {"expertmesh": "CLI"}.get(program, program.removeprefix("expertmesh-").upper())
    return pathlib.Path(os.environ[f"EXPERTMESH_{name}"])


def test_nothing_is_built(configured):
    said, files = install(configured)
    assert files == set()
    for target in [*PROGRAMS, "expertmesh_client_shared"]:
        assert f"not built: {target} (cmake --build {configured} --target {target})" in said


def test_what_local_sh_builds(configured):
    for program, folder in PROGRAMS.items():
        shutil.copy(built(program), configured / folder / program)
    said, files = install(configured)
    assert files == {f"bin/{program}" for program in PROGRAMS}
    assert said.count("not built") == 1 and "expertmesh_client_shared" in said


def test_the_client_library_alone(configured):
    libraries = sorted(built("expertmesh").parent.glob("libexpertmesh_client.so*"))
    if not libraries:
        pytest.skip("the client's shared library is not built")
    for library in libraries:
        shutil.copy(library, configured / "client/cpp", follow_symlinks=False)
    said, files = install(configured)
    assert {"include/expertmesh/client.h", "include/expertmesh/control.h"} < files
    assert any(name.endswith("cmake/expertmesh/expertmeshConfig.cmake") for name in files)
    assert not any(name.startswith("bin/") for name in files)
    assert said.count("not built") == len(PROGRAMS)
