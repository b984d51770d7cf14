"""Where figures were taken: the machine, and the state of the tree."""

import os
import pathlib
import platform
import subprocess


def _field(path, key):
    for line in pathlib.Path(path).read_text().splitlines():
        if line.startswith(key):
            return line.split(":", 1)[1].strip()
    return ""


def _release():
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


def describe():
    flags = _field("/proc/cpuinfo", "flags").split()
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    return {
        "cpu": _field("/proc/cpuinfo", "model name"),
        "cpu_features": [flag for flag in wanted if flag in flags],
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": int(_field("/proc/meminfo", "MemTotal").split()[0]) * 1024,
        "virtual": "hypervisor" in flags,
        "kernel": platform.release(),
        "system": _release(),
        "load_average_before": os.getloadavg()[0],
    }


def commit(root):
    """The commit, with "-dirty" when files differ from it; "unknown" outside of git."""
    try:
        return subprocess.run(
            [
                "git",
                "-C",
                str(root),
                "describe",
                "--always",
                "--dirty",
                "--abbrev=12",
                "--exclude=*",
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
