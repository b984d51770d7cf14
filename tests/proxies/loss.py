"""What callers lose when one of two routers is killed, or is asked to stop, under load."""

import dataclasses
import threading
import time
import collections

from behind import FAST_LAYER, HELD_LAYER
from callers import text_of
from checks import Outcome, rows

CALLERS = 4
UNARY_THREADS = 2
IN_FLIGHT = 4


@dataclasses.dataclass
class Counts:
    """What all callers have seen together; guarded by `lock`."""

    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)
    calls: int = 0
    failed: list = dataclasses.field(default_factory=list)
    messages: int = 0
    # For each stream that broke: when, requests without an answer, and why.
    broken: list = dataclasses.field(default_factory=list)


class Load:
    """Unary calls and streams from several connections, as fast as they are answered."""

    def __init__(self, make_caller, address):
        self.callers = [make_caller(address) for _ in range(CALLERS)]
        self.counts = Counts()
        self._stop = threading.Event()
        work = [self._unary] * UNARY_THREADS + [self._streams]
        self._threads = [
            threading.Thread(target=target, args=(caller,), daemon=True)
            for caller in self.callers
            for target in work
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        for caller in self.callers:
            caller.close()

    def _unary(self, caller):
        array = rows(1)
        while not self._stop.is_set():
            error = None
            try:
                caller.forward(FAST_LAYER, array, 10)
            except Exception as caught:  # pylint: disable=broad-exception-caught
                error = text_of(caught)
            with self.counts.lock:
                self.counts.calls += 1
                if error:
                    self.counts.failed.append((time.monotonic(), error))
            # The processor is not what this measures; nor do failures count by how quick they are.
            time.sleep(0.1 if error else 0.01)

    def _streams(self, caller):
        while not self._stop.is_set():
            self._stream(caller)

    def _stream(self, caller):
        room = threading.Semaphore(IN_FLIGHT)
        sent, answered = [0], [0]
        array = rows(1)

        def items():
            while not self._stop.is_set():
                if not room.acquire(timeout=0.5):
                    continue
                sent[0] += 1
                yield FAST_LAYER, array
                time.sleep(0.01)

        error = ""
        try:
            for _ in caller.many(items()):
                answered[0] += 1
                room.release()
        except Exception as caught:  # pylint: disable=broad-exception-caught
            error = text_of(caught)
        with self.counts.lock:
            self.counts.messages += answered[0]
            lost = sent[0] - answered[0]
            if error or lost or not self._stop.is_set():
                said = error or "the stream ended without an error"
                self.counts.broken.append((time.monotonic(), lost, said))
        if error:
            time.sleep(0.1)


def served(router):
    """Requests that a router has answered."""
    try:
        return router.metric("expertmesh_router_requests_total", code="OK")
    except AssertionError:
        # There is no sample before the first one.
        return 0


def _lose(make_caller, address, mesh, end):
    """Failures while one router ends by `end(router)`, is away for 5 s, and comes back."""
    router = mesh.routers[0]
    with Load(make_caller, address) as load:
        time.sleep(2)
        before = [served(each) for each in mesh.routers]
        start = time.monotonic()
        end(router)
        time.sleep(5)
        back = time.monotonic()
        router.start()
        first = None
        for _ in range(100):
            time.sleep(0.1)
            if served(router) > 0:
                first = time.monotonic() - back
                break
        time.sleep(1)
    loses = getattr(make_caller, "loses", False)
    return _outcome(load.counts, start, before, first, loses)


def _outcome(counts, start, before, first, loses):
    failed = len(counts.failed)
    lost = sum(entry[1] for entry in counts.broken)
    at_once = CALLERS * UNARY_THREADS if loses else 0
    streams = CALLERS if loses else 0
    parts = [f"{failed} of {counts.calls} calls failed"]
    if failed:
        parts[-1] += f", the last after {counts.failed[-1][0] - start:.1f} s"
    parts.append(f"{len(counts.broken)} streams broke, {lost} messages unanswered")
    parts.append("never used again" if first is None else f"used again after {first:.1f} s")
    if min(before) == 0:
        parts.append("one router got no calls")
    errors = collections.Counter(entry[-1] for entry in counts.failed + counts.broken)
    error = "; ".join(f"{count} x {text}" for text, count in errors.most_common(4))
    good = failed <= at_once and len(counts.broken) <= streams and first is not None
    return Outcome(good, "; ".join(parts), error)


def kill(make_caller, address, mesh):
    """kill -9 of one of two routers."""
    return _lose(make_caller, address, mesh, lambda router: router.kill())


def drain(make_caller, address, mesh):
    """SIGTERM to one of two routers."""
    return _lose(make_caller, address, mesh, lambda router: router.stop())


def steady(make_caller, address, _mesh, seconds=15):
    """Load while nothing happens to the routers, but for what their flags say: a connection's age, for example."""
    with Load(make_caller, address) as load:
        time.sleep(seconds)
    counts = load.counts
    lost = sum(entry[1] for entry in counts.broken)
    errors = collections.Counter(entry[-1] for entry in counts.failed + counts.broken)
    text = f"{len(counts.failed)} of {counts.calls} calls failed; {len(counts.broken)} streams ended, {lost} unanswered"
    error = "; ".join(f"{count} x {said}" for said, count in errors.most_common(4))
    streams = getattr(make_caller, "loses", False) or not counts.broken
    return Outcome(not counts.failed and streams, text, error)


def not_ready(make_caller, address, mesh):
    """One of two layers has no node, so that no router is ready: the other layer is served all the same, and an error
    says which experts are missing."""
    node = mesh.nodes[HELD_LAYER]
    caller = make_caller(address)
    node.kill()
    # Longer than a proxy's check takes to notice.
    time.sleep(3)
    said = ["", ""]
    for layer in (FAST_LAYER, HELD_LAYER):
        try:
            caller.forward(layer, rows(1), 10)
        except Exception as caught:  # pylint: disable=broad-exception-caught
            said[layer] = text_of(caught)
    caller.close()
    node.start()
    mesh.all_ready()
    good = not said[FAST_LAYER] and "no ready node holds" in said[HELD_LAYER]
    served = "the other layer is refused" if said[FAST_LAYER] else "the other layer is served"
    return Outcome(good, served, said[FAST_LAYER] or said[HELD_LAYER])
