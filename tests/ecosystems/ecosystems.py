"""How each ecosystem is made ready and checked. All that is fetched has a pinned version and goes to build/ecosystems
(those of client/stubs: build/stubs)."""

import os
import pathlib
import shutil
import subprocess
import sys

import columns
import tools
from columns import run
from golden import Golden

ROOT = pathlib.Path(__file__).parents[2]
BUILD = ROOT / "build" / "ecosystems"
STUBS = ROOT / "build" / "stubs"
HERE = pathlib.Path(__file__).parent
PROTO = ROOT / "proto"
# Those of client/stubs, each by its `check`.
LANGUAGES = ("cpp", "python", "go", "node", "connect", "java", "rust")
# The oldest that both need: grpclib's own messages, and googleapis' details.
PLAIN = ("grpclib==0.4.9", "h2==4.4.1", "googleapis-common-protos==1.75.0", "numpy==2.4.6")
PYTHON = {
    "grpclib": (*PLAIN, "grpcio-tools==1.71.2"),
    "betterproto2": (
        *PLAIN,
        "betterproto2[grpclib]==0.10.0",
        "betterproto2_compiler==0.10.1",
        "grpcio-tools==1.85.1",
    ),
}
GO = {
    "grpcurl": "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4",
    "ghz": "github.com/bojand/ghz/cmd/ghz@v0.121.0",
}
BUF = "@bufbuild/buf@1.75.0"
OWN = (*PYTHON, *GO, "buf")


def environment_of(name):
    """A Python environment with an ecosystem's packages."""
    venv = BUILD / name / "venv"
    stamp = venv / "installed"
    wanted = "\n".join(PYTHON[name])
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(venv, ignore_errors=True)
        run(sys.executable, "-m", "venv", venv)
        run(venv / "bin" / "python", "-m", "pip", "install", "--quiet", *PYTHON[name])
        stamp.write_text(wanted)
    return venv


def generate(name, venv):
    """Stubs by the ecosystem's own plugin of protoc. Returns the folder to import from."""
    folder = BUILD / name / "generated"
    shutil.rmtree(folder, ignore_errors=True)
    # betterproto2 imports upwards: its stubs are a package inside of another one.
    out = folder / "stubs" if name == "betterproto2" else folder
    out.mkdir(parents=True)
    flags = {
        "grpclib": [f"--python_out={out}", f"--grpclib_python_out={out}"],
        "betterproto2": [
            f"--python_betterproto2_out={out}",
            "--python_betterproto2_opt=client_generation=async",
        ],
    }
    path = f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"
    protos = sorted(PROTO.glob("expertmesh/v1/*.proto"))
    argv = [venv / "bin" / "python", "-m", "grpc_tools.protoc", "-I", PROTO, *flags[name], *protos]
    run(*argv, env={**os.environ, "PATH": path})
    return folder


def python_run(name, venv, folder, *arguments):
    program = {"grpclib": "grpclib_check.py", "betterproto2": "betterproto_check.py"}[name]
    path = f"{folder}{os.pathsep}{HERE}"
    settings = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    return run(venv / "bin" / "python", HERE / program, *arguments, env=settings)


def check_python(name, address, golden):
    """Prints what the check printed."""
    try:
        venv = environment_of(name)
        folder = generate(name, venv)
        columns.say("generate", "yes")
    except ValueError as error:
        columns.say("generate", "no", error)
        return
    columns.say("compile", "n/a", "Python")
    print(python_run(name, venv, folder, address, golden), end="")


def neighbours(address, count):
    """What grpclib says of neighbours of a deadline: lines of text."""
    venv = environment_of("grpclib")
    folder = generate("grpclib", venv)
    return python_run("grpclib", venv, folder, address, "neighbours", count)


def go_tool(name):
    folder = BUILD / "go"
    stamp = folder / f"{name}.version"
    if not stamp.exists() or stamp.read_text() != GO[name]:
        settings = {**os.environ, "GOBIN": str(folder), "GOFLAGS": "-mod=mod"}
        run("go", "install", GO[name], env=settings, seconds=1200)
        stamp.write_text(GO[name])
    return folder / name


def buf():
    folder = BUILD / "npm"
    stamp = folder / "version"
    if not stamp.exists() or stamp.read_text() != BUF:
        folder.mkdir(parents=True, exist_ok=True)
        run("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder, BUF)
        stamp.write_text(BUF)
    return folder / "node_modules" / ".bin" / "buf"


def check_tool(name, address, golden):
    golden = Golden(golden)
    if name == "grpcurl":
        tools.check(tools.Grpcurl(go_tool("grpcurl"), address), golden)
    elif name == "buf":
        tools.check(tools.BufCurl(buf(), address), golden)
    else:
        model = tools.model_of(tools.Grpcurl(go_tool("grpcurl"), address))
        tools.check_ghz(tools.Ghz(go_tool("ghz"), address), model, golden)


def check_language(name, address, golden):
    """By the scripts of client/stubs, which print the lines of a running program themselves."""
    stubs = ROOT / "client" / "stubs"
    for column, argv in (
        ("generate", [stubs / "generate.sh", "--language", name, STUBS]),
        ("compile", [stubs / "example.sh", name, STUBS, "none"]),
        ("", [stubs / "example.sh", name, STUBS, "check", address, golden]),
    ):
        argv = [str(part) for part in argv]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=1800, check=False)
        print(done.stdout, end="")
        if done.returncode == 2:
            print(f"missing: {(done.stderr.strip() or argv[0]).splitlines()[0]}")
            return
        if done.returncode == 3:
            for each in columns.COLUMNS:
                columns.say(each, "n/a", done.stderr)
            return
        if column:
            columns.say(column, "no" if done.returncode else "yes", done.stderr if done.returncode else "")
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            return


def check(name, address, golden):
    """Prints the lines of one ecosystem."""
    if name in LANGUAGES:
        check_language(name, address, golden)
    elif name in PYTHON:
        check_python(name, address, golden)
    else:
        check_tool(name, address, golden)


if __name__ == "__main__":
    check(*sys.argv[1:])
