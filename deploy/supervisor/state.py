"""The state folder of a mesh: what runs, where it serves, and its logs.

    pids        a line for each process: name, pid, and when it started (in clock ticks since boot), so that a pid
                that was given to another process meanwhile is never taken for the mesh's
    mesh.json   addresses and model, for programs that use the mesh
    targets.json  where its metrics are, for Prometheus (file_sd_configs)
    logs/       a log for each process and step
    NAME.port   the ports of a process, by itself
    lock        held by the `up` that works on the folder, for as long as it lives
    stopping    tells an `up` that serves in another terminal that `down` ends its processes

What a mesh left that was killed, or that the machine's restart ended, counts as ended: such lines of `pids` name no
process that runs, and the next `up` or `down` removes them.
"""

import fcntl
import json
import os
import pathlib

from supervisor.process import Clock, poll_until


def started_at(pid):
    """When a process started; None when there is none, or it has ended and only its parent does not know yet."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The second field, (name), may hold spaces.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


class RecordedProcess:
    """A process that some process started, known by its line in `pids`."""

    def __init__(self, name, pid, start):
        self.name, self.pid, self._start = name, pid, start

    def running(self):
        return started_at(self.pid) == self._start

    def signal(self, number):
        if self.running():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass


class State:
    def __init__(self, folder):
        # Absolute, since messages name it; not resolved, since users know it by the name they gave.
        self.folder = pathlib.Path(os.path.abspath(folder))
        self.logs = self.folder / "logs"
        self.lock_file = self.folder / "lock"
        self._pids = self.folder / "pids"
        self._mesh = self.folder / "mesh.json"
        self._targets = self.folder / "targets.json"
        self._stopping = self.folder / "stopping"

    def prepare(self):
        """For a mesh that is about to start: takes away what an earlier one left."""
        self.logs.mkdir(parents=True, exist_ok=True)
        self.clear()
        self._stopping.unlink(missing_ok=True)

    def record(self, process):
        """Adds a process that was just started."""
        # 0 matches no process: it has ended already.
        with open(self._pids, "a", encoding="utf-8") as pids:
            pids.write(f"{process.name} {process.pid} {started_at(process.pid) or 0}\n")

    def recorded(self):
        """All processes of `pids`, in the order in which they started."""
        try:
            lines = self._pids.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        fields = [line.split() for line in lines]
        # A line that a full disk cut off names no process.
        return [
            RecordedProcess(each[0], int(each[1]), int(each[2]))
            for each in fields
            if len(each) == 3 and each[1].isdigit() and each[2].isdigit()
        ]

    def running(self):
        return [process for process in self.recorded() if process.running()]

    def write_mesh(self, mesh):
        """Writes mesh.json, a key a line, and targets.json."""
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in mesh.items()]
        self._write(self._mesh, "{\n" + ",\n".join(lines) + "\n}\n")
        places = {"router": [mesh["metrics"]], "expert": mesh["node_metrics"]}
        targets = [
            {"targets": places[kind], "labels": {"job": f"expertmesh-{kind}"}} for kind in places
        ]
        self._write(self._targets, json.dumps(targets, indent=2) + "\n")

    @staticmethod
    def _write(path, text):
        """Whole or not at all."""
        partial = path.with_name(f"{path.name}.tmp")
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)

    def mesh(self):
        """What mesh.json says; None when there is none."""
        try:
            return json.loads(self._mesh.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def announce_stop(self):
        self._stopping.touch()

    def stop_announced(self):
        return self._stopping.exists()

    def clear(self):
        """Removes what says that a mesh runs; the logs stay."""
        # A process that is killed while it writes its ports leaves NAME.port.new.
        ports = [*self.folder.glob("*.port"), *self.folder.glob("*.port.new")]
        for path in (self._pids, self._mesh, self._targets, *ports):
            path.unlink(missing_ok=True)


def try_lock(descriptor, seconds, clock=Clock):
    """Takes the lock of an open lock file; false when another process holds it all the time."""

    def locked():
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    return poll_until(locked, seconds, clock, interval=0.1)
