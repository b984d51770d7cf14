"""What the tests of the supervisor share: its path, a fake clock, fake programs."""

import pathlib
import sys

ROOT = pathlib.Path(__file__).parents[4]
SUPERVISOR = ROOT / "deploy" / "supervisor"
sys.path.insert(0, str(SUPERVISOR.parent))

FAKE = [sys.executable, "-I", "-S", pathlib.Path(__file__).parent / "fake_program.py"]
# A bound on waiting for what is bound to happen, however busy the machine.
PATIENCE = 120


class FakeClock:
    """Time passes only by sleeping, and that takes none."""

    def __init__(self):
        self.time = 0.0

    def now(self):
        return self.time

    def sleep(self, seconds):
        self.time += seconds


def make_build(folder):
    """A build folder whose programs are fakes."""
    places = {
        "router_service/expertmesh-router": "router",
        "expert_service/expertmesh-expert": "expert",
        "client/cpp/expertmesh": "command",
    }
    for place, role in places.items():
        path = folder / place
        path.parent.mkdir(parents=True)
        program = " ".join(f"'{word}'" for word in FAKE)
        path.write_text(f'#!/bin/sh\nexec {program} {role} "$@"\n')
        path.chmod(0o755)
    return folder


