"""A mesh that is asked for more than it can do: what it still answers in time, and what memory that takes.

    build/venv/bin/python tests/bench/overload.py [--times 3] [--seconds 60] [--deadline 1] [--tokens 64]
                                                  [--rest 30] [--router-flags "--max-queue-time=2s"]

Finds the peak first, in a closed loop of 32 callers. Then sends requests at --times that rate whatever becomes of
them (open loop), each with a deadline, and prints

  goodput   tokens answered before their deadlines, as a share of the peak
  refused   requests answered with QUEUE_FULL by the router, and how quickly (from its metrics)
  resident  memory of the router before, at most while it was overloaded, and after --rest seconds

Caller, router and nodes share the cores of this machine: a caller that sends three times as much takes that from the
others, so goodput here is lower than where callers have machines of their own.

Takes this tree's programs from the environment, or else from build/release.
"""

import argparse
import json
import pathlib
import shlex
import subprocess
import tempfile
import threading
import time

import versus  # Sets the programs. pylint: disable=unused-import

# pylint: disable=wrong-import-order
from expertmesh import Client
from mesh import Mesh, cli, program, shards

MODEL = ["--layers", 1, "--d-model", 256, "--experts", 16, "--top-k", 4, "--intermediate", 512]


def resident(router):
    return router.metric("expertmesh_process_resident_bytes")


class Watch(threading.Thread):
    """Most memory that the router had resident, from start() to stop()."""

    def __init__(self, router):
        super().__init__(daemon=True)
        self.most = 0
        self._router = router
        self._over = threading.Event()

    def run(self):
        while not self._over.wait(0.25):
            self.most = max(self.most, resident(self._router))

    def stop(self):
        self._over.set()
        self.join()
        return self.most


def bench(mesh, folder, *flags):
    """What `expertmesh bench` saw."""
    out = folder / "bench.json"
    command = [program("cli"), "bench", "--router", mesh.router.address, "--json", out, *flags]
    # An open loop in which requests fail is no success.
    subprocess.run(list(map(str, command)), check=False, capture_output=True)
    (layer,) = json.loads(out.read_text())["layers"]
    out.unlink()
    return layer


def codes(router):
    found = {}
    for code in ("OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "UNAVAILABLE", "CANCELLED"):
        try:
            found[code] = int(router.metric("expertmesh_router_requests_total", code=code))
        except AssertionError:
            pass  # There was none.
    return found


def overload(options, folder):
    model = folder / "model"
    cli("checkpoint", "make", "--output", model, "--family", "qwen3_moe", *MODEL)
    with Mesh(folder) as mesh:
        flags = shlex.split(options.router_flags)
        mesh.start(model, shards(2, "--threads", "1"), *flags)
        with Client(mesh.router.address):
            pass
        tokens = ["--tokens", options.tokens]
        peak = bench(mesh, folder, *tokens, "--callers", 32, "--duration", options.peak_seconds)
        if not peak["requests"] or peak["failed"]:
            raise SystemExit(f"the closed loop failed: {peak}")
        rate = options.times * peak["tokens_per_second"] / options.tokens
        before, codes_before = resident(mesh.router), codes(mesh.router)
        watch = Watch(mesh.router)
        watch.start()
        timed = ["--duration", options.seconds, "--timeout", options.deadline]
        seen = bench(mesh, folder, *tokens, "--rate", f"{rate:.1f}", *timed)
        most, left = watch.stop(), resident(mesh.router)
        nodes = [node.metric("expertmesh_process_resident_bytes") for node in mesh.nodes]
        time.sleep(options.rest)
        rested = resident(mesh.router)
        answers = {
            code: count - codes_before.get(code, 0) for code, count in codes(mesh.router).items()
        }
        goodput = seen["requests"] * options.tokens / max(seen["seconds"], options.seconds)
        return {
            "peak_tokens_per_second": round(peak["tokens_per_second"]),
            "peak_p50_ms": round(peak["p50_ms"], 1),
            "offered_tokens_per_second": round(rate * options.tokens),
            "goodput_tokens_per_second": round(goodput),
            "goodput_share": round(goodput / peak["tokens_per_second"], 3),
            "p50_ms": round(seen["p50_ms"], 1),
            "answered": seen["requests"],
            "failed": seen["failed"],
            "router_answers": answers,
            "resident_mb": {
                "before": round(before / 1e6, 1),
                "most": round(most / 1e6, 1),
                "right_after": round(left / 1e6, 1),
                f"after_{options.rest:g}_s": round(rested / 1e6, 1),
                "nodes_right_after": [round(node / 1e6, 1) for node in nodes],
            },
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=float, default=3)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--peak-seconds", type=float, default=5)
    parser.add_argument("--deadline", type=float, default=1)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rest", type=float, default=30)
    parser.add_argument("--router-flags", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(overload(options, pathlib.Path(folder)), indent=2))


if __name__ == "__main__":
    main()
