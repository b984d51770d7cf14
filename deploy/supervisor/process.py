"""Programs as children of this process: started, watched, asked to end, killed; and why they ended.

    node = Service("node0", [expert_program, "--model", model], folder, patience=60)
    node.start()                      # returns once it is bound; node.address says where
    stop_all([node], grace=15)        # SIGTERM, then SIGKILL
"""

import signal
import subprocess
import time

HOST = "127.0.0.1"
# For SIGKILL. The kernel ends a process at once, unless that waits for a disk or a network file system.
KILL_SECONDS = 60
# Put before a command, it has the kernel kill the program when the thread that started it ends. Not by preexec_fn:
# with it Python forks, and gRPC, where the process uses it, starts its poller in the fork while descriptors are
# being closed, which aborts the process now and then.
_DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")


class Clock:
    """The seam of time: tests give one that only counts."""

    now = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)


class Interrupted(Exception):
    """Ctrl-C, or a signal that asks this process to end."""

    def __init__(self, number):
        super().__init__(signal.Signals(number).name)
        self.exit_status = 130 if number == signal.SIGINT else 143


class InterruptibleClock:
    """The real clock, whose `sleep` raises Interrupted after a signal.

    Everything waits by `sleep`, so a signal is acted on within a moment, but never between the start of a process
    and its record. The signals stay noted and harmless after that: a second Ctrl-C breaks off no cleaning up.
    """

    now = staticmethod(Clock.now)

    def __init__(self):
        self._received = None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup and a shell's & have some ignored.
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._note)

    def _note(self, number, _frame):
        self._received = self._received or number

    def sleep(self, seconds):
        if self._received is None:
            Clock.sleep(seconds)
        if self._received is not None:
            raise Interrupted(self._received)


class ProcessError(Exception):
    """A program did not do what it should. The text says which one, why, and what it last logged."""


def poll_until(condition, seconds, clock=Clock, interval=0.01):
    """Polls for what no event reports (files, processes). Returns the condition's value: false after `seconds`."""
    deadline = clock.now() + seconds
    while not (value := condition()) and clock.now() < deadline:
        clock.sleep(interval)
    return value


def stop_all(processes, grace, clock=Clock):
    """Asks each to end, in this order, and kills what runs after `grace` seconds. Returns those that it killed.
    Raises ProcessError when one runs all the same.

    `processes` have `name`, `running()` and `signal(number)`; they need not be children of this process.
    """

    def still_running():
        return [process for process in processes if process.running()]

    for process in still_running():
        process.signal(signal.SIGTERM)
        # A stopped process would not see it.
        process.signal(signal.SIGCONT)
    poll_until(lambda: not still_running(), grace, clock)
    killed = still_running()
    for process in killed:
        process.signal(signal.SIGKILL)
    # The kernel's time, whatever the clock is.
    if not poll_until(lambda: not still_running(), KILL_SECONDS):
        names = ", ".join(process.name for process in still_running())
        raise ProcessError(f"still running {KILL_SECONDS} s after SIGKILL: {names}")
    return killed


class Process:
    """One program. Its output goes to `log_file`, or where this process's goes when that is None."""

    def __init__(
        self, name, argv, log_file=None, *, patience=15.0, die_with_parent=False, clock=Clock
    ):
        """patience: bound in seconds on each wait. die_with_parent: it does not outlive this process."""
        self.name = name
        self.argv = [str(argument) for argument in argv]
        self.log_file = log_file
        self.patience = patience
        self.clock = clock
        self.process = None
        self._prefix = _DIE_WITH_PARENT if die_with_parent else ()

    def command(self):
        return self.argv

    def spawn(self, **streams):
        """Starts it in a session of its own, so that a terminal's Ctrl-C reaches only this process. The log goes
        on where an earlier run of it ended. `streams`: options of Popen, instead of no input and the log."""
        log = None if self.log_file is None else open(self.log_file, "ab")
        try:
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, **streams}
            command = [*self._prefix, *self.command()]
            self.process = subprocess.Popen(command, start_new_session=True, **streams)
        finally:
            if log is not None:
                log.close()
        return self

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        return self.process is not None and self.process.poll() is None

    def signal(self, number):
        """Sends it a signal; does nothing when it has ended."""
        self.process.send_signal(number)

    def kill(self):
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def wait(self):
        """Waits for it to end. Returns its exit status, or minus the signal that ended it."""
        return self.process.wait(self.patience)

    def stop(self):
        """Asks it to end. Raises ProcessError when it had to be killed, or ended with an error."""
        if not self.running():
            return
        if stop_all([self], self.patience, self.clock):
            raise ProcessError(f"{self.name} did not end on SIGTERM:\n{self.log()}")
        if self.process.returncode != 0:
            raise ProcessError(f"{self.name}: {self.ending()}:\n{self.log()}")

    def ending(self):
        """Why it ended, in words."""
        code = self.process.returncode
        if code >= 0:
            return f"ended with exit status {code}"
        names = {number.value: number.name for number in signal.Signals}
        return f"ended by {names.get(-code, f'signal {-code}')}"

    def log(self):
        if self.log_file is None or not self.log_file.exists():
            return ""
        return self.log_file.read_text(errors="replace")

    def last_words(self, lines=15):
        """The last lines of its log."""
        return "".join(self.log().splitlines(keepends=True)[-lines:])


class Service(Process):
    """A program with --listen, --metrics-listen and --port-file (a router or a node), its files in `folder`.

    It picks its own ports unless `listen` and `metrics_listen` say otherwise. They are known once it is bound, and
    a restart keeps them.
    """

    def __init__(self, name, argv, folder, **options):
        options.setdefault("log_file", folder / f"{name}.log")
        super().__init__(name, argv, **options)
        self.port_file = folder / f"{name}.port"
        self.listen = self.metrics_listen = f"{HOST}:0"
        self.grpc_port = self.metrics_port = None

    @property
    def address(self):
        return f"{HOST}:{self.grpc_port}"

    def command(self):
        return [
            *self.argv,
            *("--listen", self.listen, "--metrics-listen", self.metrics_listen),
            *("--port-file", str(self.port_file)),
        ]

    def spawn(self, **streams):
        self.port_file.unlink(missing_ok=True)
        return super().spawn(**streams)

    def start(self):
        """Starts it and waits until it is bound."""
        return self.spawn().wait_bound()

    def wait_bound(self):
        ports = poll_until(self._ports, self.patience, self.clock)
        if not ports:
            raise ProcessError(
                f"{self.name} has not bound its ports within {self.patience:g} s:\n{self.log()}"
            )
        self.grpc_port, self.metrics_port = map(int, ports)
        self.listen = f"{HOST}:{self.grpc_port}"
        self.metrics_listen = f"{HOST}:{self.metrics_port}"
        return self

    def _ports(self):
        """Both ports; nothing before it is bound."""
        # Asked first, so that one that bound and ended at once counts as ended.
        if not self.running():
            raise ProcessError(f"{self.name} {self.ending()}:\n{self.log()}")
        return self.port_file.exists() and self.port_file.read_text().split()
