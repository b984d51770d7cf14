"""Generates expertmesh/v1/*_pb2.py, *_pb2.pyi and *_pb2_grpc.py from the contract while building.

The .proto files are in ../../proto in a source tree, and in ./proto in a source distribution.
"""

import atexit
import pathlib
import shutil
import tempfile

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = pathlib.Path(__file__).resolve().parent


def proto_root() -> pathlib.Path:
    for root in (HERE / "proto", HERE.parent.parent / "proto"):
        if (root / "expertmesh" / "v1").is_dir():
            return root
    raise SystemExit(
        f"no expertmesh/v1/*.proto in {HERE / 'proto'} or {HERE.parent.parent / 'proto'}; build from "
        "a complete source tree or from a source distribution"
    )


def generate(out: pathlib.Path) -> None:
    import grpc_tools
    from grpc_tools import protoc

    root = proto_root()
    protos = sorted(str(path) for path in (root / "expertmesh" / "v1").glob("*.proto"))
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    code = protoc.main(
        ["protoc", f"-I{root}", f"-I{well_known}"]
        + [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
        + protos
    )
    if code != 0:
        raise SystemExit(f"protoc failed with exit status {code} on {', '.join(protos)}")


class BuildWithStubs(build_py):
    def run(self) -> None:
        super().run()
        # An editable install imports from src/, so the stubs go there.
        out = HERE / "src" if self.editable_mode else pathlib.Path(self.build_lib)
        out.mkdir(parents=True, exist_ok=True)
        generate(out)
        if not self.editable_mode:
            # For protos that import ours: the folder of the packages is then a path of protoc.
            for proto in (proto_root() / "expertmesh" / "v1").glob("*.proto"):
                shutil.copy(proto, out / "expertmesh" / "v1")


class SdistWithProtos(sdist):
    def make_release_tree(self, base_dir: str, files: list) -> None:
        super().make_release_tree(base_dir, files)
        shutil.copytree(
            proto_root(),
            pathlib.Path(base_dir) / "proto",
            ignore=lambda folder, names: [
                name
                for name in names
                if not name.endswith(".proto") and not (pathlib.Path(folder) / name).is_dir()
            ],
            dirs_exist_ok=True,
        )


# A build folder of its own each time: nothing of an earlier build can slip into a wheel.
build_base = tempfile.mkdtemp(prefix="expertmesh-build-")
atexit.register(shutil.rmtree, build_base, ignore_errors=True)

setup(
    cmdclass={"build_py": BuildWithStubs, "sdist": SdistWithProtos},
    options={"build": {"build_base": build_base}},
)
