"""Packages of client/stubs/package.sh, used from a folder outside the tree: each by a program with a contract of
its own (user_proto) that imports ours.

EXPERTMESH_STUBS names the languages, all by default.
"""

import json
import os
import pathlib
import re
import shutil
import sys
import tarfile
import tomllib
import xml.etree.ElementTree
import zipfile

import pytest

import stubs
from mesh import Mesh, shards
from readmes import commands_of
from stubs import BUILD_SECONDS, ROOT, STUBS, run

sys.path.append(str(ROOT / "tests" / "golden" / "forward"))
import make_forward_golden  # noqa: E402

USER = pathlib.Path(__file__).parent / "user_proto"
PROTO = ROOT / "proto"
SOURCES = ROOT / "client" / "stubs"
JOB = "acme/v1/jobs.proto"
# The name "a", and a request of layer 7.
BYTES = "0a016112021007"
(VERSION,) = re.findall(
    r"^project\(expertmesh VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text(), re.MULTILINE
)


def must(*argv, **options):
    """What a command that succeeds prints."""
    done = run(*argv, seconds=BUILD_SECONDS, **options)
    assert done.returncode == 0, f"{argv}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


def package(language, out):
    must(SOURCES / "package.sh", language, out, STUBS)
    return out


def protoc(folder, ours, *options, compiler=("protoc",), env=None):
    """Compiles the user's contract; ours is in the folder `ours`: that of the package, where there is one."""
    must(*compiler, "-I", ours, "-I", USER, *options, JOB, cwd=folder, env=env)


# Each takes an empty folder and returns what its program prints.
def use_cpp(folder):
    protoc(
        folder,
        PROTO,
        "--cpp_out=.",
        "--grpc_out=.",
        "--plugin=protoc-gen-grpc=" + which("grpc_cpp_plugin"),
    )
    flags = must("pkg-config", "--cflags", "--libs", "grpc++", "protobuf").split()
    objects = (STUBS / "cpp/build/CMakeFiles/stubs.dir").rglob("*.o")
    sources = [USER / "main.cc", *folder.glob("acme/v1/*.cc")]
    must(
        "c++",
        "-std=c++17",
        "-I.",
        "-I",
        STUBS / "cpp",
        *sources,
        *objects,
        *flags,
        "-o",
        "main",
        cwd=folder,
    )
    return must(folder / "main")


def use_python(folder):
    (wheel,) = package("python", folder).glob("*.whl")
    python = STUBS / "python/.venv/bin/python"
    must(python, "-m", "pip", "install", "--no-deps", "--target", folder, wheel)
    protoc(
        folder,
        folder,
        "--python_out=.",
        "--grpc_python_out=.",
        compiler=[python, "-m", "grpc_tools.protoc"],
    )
    # Run by the Python of the tests, which has what the client depends on.
    return must(sys.executable, USER / "main.py", env=os.environ | {"PYTHONPATH": str(folder)})


def use_go(folder):
    served = package("go", folder) / "go"
    only_ours = {"GOPROXY": f"file://{served}", "GONOSUMDB": "expertmesh.dev"}
    only_ours |= {"GOMODCACHE": str(folder / "cache"), "GOFLAGS": "-modcacherw"}
    download = ["go", "mod", "download", "-json", f"expertmesh.dev/expertmesh@v{VERSION}"]
    module = pathlib.Path(json.loads(must(*download, env=os.environ | only_ours))["Dir"])
    plugins = f"{STUBS}/go/.bin{os.pathsep}{os.environ['PATH']}"
    options = ["--go_out=.", "--go_opt=module=acme.test/jobs"]
    options += [option.replace("--go_", "--go-grpc_") for option in options]
    with_plugins = os.environ | {"PATH": plugins, "GOFLAGS": "-mod=mod"}
    protoc(folder, module / "proto", *options, env=with_plugins)
    shutil.copy(USER / "main.go", folder)
    shutil.copy(SOURCES / "go/examples/go.sum", folder)
    text = (SOURCES / "go/examples/go.mod").read_text()
    text = text.replace("module expertmesh.dev/examples", "module acme.test/jobs")
    (folder / "go.mod").write_text(text.replace("../expertmesh", str(module)))
    return must("go", "run", ".", cwd=folder, env=with_plugins)


def use_npm(language, folder, *options):
    (archive,) = package(language, folder).glob("*.tgz")
    here = json.loads((SOURCES / language / "package.json").read_text())
    wanted = here["devDependencies"] | here["dependencies"] | {here["name"]: f"file:{archive.name}"}
    manifest = {"name": "acme", "type": "module", "dependencies": wanted}
    (folder / "package.json").write_text(json.dumps(manifest))
    must(
        "npm",
        "install",
        "--prefer-offline",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        cwd=folder,
    )
    protoc(folder, folder / "node_modules" / here["name"] / "proto", *options)
    shutil.copy(USER / f"{language}.ts", folder)
    tsc = ["--strict", "--skipLibCheck", "--target", "ES2022", "--module", "NodeNext"]
    must("node_modules/.bin/tsc", *tsc, f"{language}.ts", cwd=folder)
    required = f"require('{here['name']}/v1/router')"
    assert "object" == must("node", "-p", f"typeof {required}", cwd=folder)
    return must("node", f"{language}.js", cwd=folder)


def use_node(folder):
    return use_npm(
        "node",
        folder,
        "--plugin=node_modules/.bin/protoc-gen-ts_proto",
        "--ts_proto_out=.",
        "--ts_proto_opt=outputServices=grpc-js,env=node,esModuleInterop=true,importSuffix=.js",
        "--ts_proto_opt=forceLong=bigint,Mexpertmesh/v1/router.proto=@expertmesh/grpc-js/v1/router",
    )


def use_connect(folder):
    return use_npm(
        "connect",
        folder,
        "--plugin=node_modules/.bin/protoc-gen-es",
        "--es_out=.",
        "--es_opt=target=ts,import_extension=js",
        "--es_opt=rewrite_imports=./expertmesh/**/*_pb.js:@expertmesh/connect",
    )


def use_java(folder):
    jar = package("java", folder) / f"expertmesh-proto-{VERSION}.jar"
    path = (STUBS / "java/examples/target/class-path").read_text()
    (well_known,) = re.findall(r"[^:]*/protobuf-java-[0-9.]*\.jar", path)
    for archive in (jar, well_known):
        zipfile.ZipFile(archive).extractall(folder / "jars")
    # Those that Maven fetched.
    plugins = STUBS / "java/proto/target/protoc-plugins"
    (compiler,) = plugins.glob("protoc-[0-9]*.exe")
    (plugin,) = plugins.glob("protoc-gen-grpc-java-*.exe")
    options = ["--java_out=.", "--grpc_out=.", f"--plugin=protoc-gen-grpc={plugin}"]
    protoc(folder, folder / "jars", *options, compiler=[compiler])
    path = f"{jar}:{path}"
    must(
        "javac",
        "-cp",
        path,
        "-d",
        "classes",
        USER / "Main.java",
        *folder.rglob("acme/v1/*.java"),
        cwd=folder,
    )
    return must("java", "-ea", "-cp", f"classes:{path}", "Main", cwd=folder)


def use_rust(folder):
    crate = package("rust", folder) / f"expertmesh-{VERSION}.crate"
    with tarfile.open(crate) as archive:
        archive.extractall(folder, filter="data")
    made = shutil.copytree(USER / "rust", folder / "user")
    manifest = (made / "Cargo.toml").read_text()
    (made / "Cargo.toml").write_text(
        manifest.replace("expertmesh-VERSION", f"expertmesh-{VERSION}")
    )
    shutil.copy(SOURCES / "rust/Cargo.lock", made)
    env = os.environ | {"PROTO_PATH": f"{USER}:{folder}/expertmesh-{VERSION}/proto"}
    target = ["--target-dir", STUBS / "rust/target"]
    return must("cargo", "run", "--quiet", *target, cwd=made, env=env)


def which(program):
    path = shutil.which(program)
    assert path, f"no {program} on PATH"
    return path


@pytest.mark.parametrize("language", stubs.LANGUAGES)
def test_a_contract_of_a_users_own_imports_ours(language, tmp_path):
    stubs.build(language)
    assert globals()[f"use_{language}"](tmp_path) == BYTES


@pytest.mark.skipif("go" not in stubs.LANGUAGES, reason="grpcurl is written in Go")
def test_grpcurl_as_the_readme_calls_it(tmp_path):
    stubs.build("go")
    programs = STUBS / "go" / ".grpcurl"
    if not (programs / "grpcurl").exists():
        env = os.environ | {"GOBIN": str(programs), "GOFLAGS": ""}
        must("go", "install", "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4", env=env)
    (block,) = [one for one in commands_of("client/README.md") if "grpcurl" in one.text]
    make_forward_golden.make_checkpoint(tmp_path / "checkpoint")
    with Mesh(tmp_path) as mesh:
        mesh.start(tmp_path / "checkpoint", shards(1))
        text = block.text.replace("127.0.0.1:50050", mesh.router.address)
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        answer = json.loads(must("bash", "-euc", text, env=os.environ | {"PATH": path}))
    assert answer["output"]["shape"] == ["1", "32"]


def test_every_package_has_the_version_and_the_licence_of_the_tree():
    python = tomllib.loads((ROOT / "client/python/pyproject.toml").read_text())["project"]
    found = {"python": (python["version"], python["license"])}
    for name in ("expertmesh", "generate", "examples"):
        crate = tomllib.loads((SOURCES / f"rust/{name}/Cargo.toml").read_text())["package"]
        found[f"rust/{name}"] = (crate["version"], crate["license"])
    for name in ("node", "connect"):
        for file in ("package.json", "package-lock.json"):
            npm = json.loads((SOURCES / name / file).read_text())
            npm = npm.get("packages", {"": npm})[""]
            found[f"{name}/{file}"] = (npm["version"], npm["license"])
    maven = {"m": "http://maven.apache.org/POM/4.0.0"}
    pom = xml.etree.ElementTree.parse(SOURCES / "java/proto/pom.xml")
    found["java"] = (
        pom.findtext("m:version", None, maven),
        pom.findtext(".//m:license/m:name", None, maven),
    )
    assert found == dict.fromkeys(found, (VERSION, "Apache-2.0"))
    for file in ("java/pom.xml", "java/examples/pom.xml"):
        pom = xml.etree.ElementTree.parse(SOURCES / file)
        assert pom.findtext("m:version", None, maven) == VERSION, file
    assert f"expertmesh.dev/expertmesh v{VERSION}\n" in (SOURCES / "go/examples/go.mod").read_text()
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_bad_usage_of_package():
    for arguments, told in (
        ([], "give LANGUAGE, OUTPUT_DIR"),
        (["cobol", "out"], "LANGUAGE is cobol"),
    ):
        done = run(SOURCES / "package.sh", *arguments)
        assert done.returncode == 2 and told in done.stderr
        assert "package.sh LANGUAGE OUTPUT_DIR" in done.stderr
