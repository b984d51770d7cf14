"""What a proxy must let through. Each check returns an Outcome."""

import dataclasses
import random
import string
import threading
import time

import grpc
import numpy as np

from behind import D_MODEL, FAST_LAYER, HELD_LAYER
from callers import HEARTBEAT, RawCaller, reason_of, text_of

BIG_ROWS = 60_000_000 // (4 * D_MODEL)
METADATA_KB = (4, 8, 15, 30, 60)
# As large as the field is, so as good as never.
NEVER_MS = 2**32 - 1
HEARTBEAT_SECONDS = 10
NO_LAYER = 4096


@dataclasses.dataclass(frozen=True)
class Outcome:
    good: bool
    text: str
    # What the caller saw.
    error: str = ""


def rows(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, D_MODEL), dtype=np.float32)


def big(caller, _mesh):
    """60 MB there and 60 MB back in one unary call."""
    array = rows(BIG_ROWS)
    start = time.monotonic()
    try:
        answered = caller.forward(FAST_LAYER, array, 100)
    except NotImplementedError:
        raise
    except Exception as error:  # pylint: disable=broad-exception-caught
        return Outcome(False, f"fails after {time.monotonic() - start:.1f} s", text_of(error))
    good = len(answered) == array.nbytes
    return Outcome(good, f"{time.monotonic() - start:.1f} s")


def errors(caller, _mesh, count=100):
    """Refused calls: each must say its code and its reason."""
    wrong = []
    for _ in range(count):
        try:
            caller.forward(NO_LAYER, rows(1), 20)
        except Exception as error:  # pylint: disable=broad-exception-caught
            if "INVALID_ARGUMENT" not in text_of(error) or reason_of(error) != "INVALID_FIELD":
                wrong.append(text_of(error))
    return Outcome(not wrong, f"{count - len(wrong)} of {count}", wrong[0] if wrong else "")


def metadata(caller, _mesh):
    """Metadata of one call, in kB: the largest of METADATA_KB that passes."""
    letters = random.Random(1).choices(string.ascii_letters + string.digits, k=60 * 1024)
    passed = 0
    for size in METADATA_KB:
        value = "".join(letters[: size * 1024])
        try:
            caller.forward(FAST_LAYER, rows(1), 20, metadata=[("x-test", value)])
        except NotImplementedError:
            raise
        except Exception as error:  # pylint: disable=broad-exception-caught
            return Outcome(False, f"{passed} kB", f"{size} kB: {text_of(error)}")
        passed = size
    return Outcome(True, f"{passed} kB")


def slow(caller, mesh, seconds=20):
    """A unary call that a node answers only after 20 s."""
    array = rows(64)
    mesh.relay.hold(True)
    timer = threading.Timer(seconds, mesh.relay.hold, [False])
    start = time.monotonic()
    timer.start()
    try:
        caller.forward(HELD_LAYER, array, 60)
    except NotImplementedError:
        raise
    except Exception as error:  # pylint: disable=broad-exception-caught
        return Outcome(False, f"fails after {time.monotonic() - start:.0f} s", text_of(error))
    took = time.monotonic() - start
    return Outcome(took >= seconds - 1, f"{took:.0f} s")


def _stream(caller, items):
    """Runs a stream to its end. `items` is a generator; it is told to stop when the stream breaks."""
    start = time.monotonic()
    answered = 0
    try:
        for _ in caller.many(items):
            answered += 1
    except NotImplementedError:
        raise
    except Exception as error:  # pylint: disable=broad-exception-caught
        return answered, time.monotonic() - start, text_of(error)
    return answered, time.monotonic() - start, ""


def active(caller, _mesh, seconds=90):
    """A ForwardStream with 4 kB messages, 20 a second, for 90 s."""
    sent = [0]
    array = rows(1)
    end = time.monotonic() + seconds

    def items():
        while time.monotonic() < end:
            sent[0] += 1
            yield FAST_LAYER, array
            time.sleep(0.05)

    answered, took, error = _stream(caller, items())
    count = sent[0]
    if error:
        return Outcome(False, f"ends after {took:.0f} s, {answered} answers", error)
    return Outcome(answered == count, f"{answered} of {count} answered")


def idle(caller, _mesh, seconds=90, heartbeats=True):
    """A ForwardStream whose requests are 90 s apart, with heartbeats between them."""

    def items():
        yield FAST_LAYER, rows(1)
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, HEARTBEAT_SECONDS))
            if heartbeats:
                yield HEARTBEAT
        yield FAST_LAYER, rows(1)

    answered, took, error = _stream(caller, items())
    if error:
        return Outcome(False, f"ends after {took:.0f} s", error)
    return Outcome(answered == 2, f"{answered} of 2 answered")


def silent(caller, mesh, seconds=90):
    """The same without heartbeats."""
    return idle(caller, mesh, seconds, heartbeats=False)


def watch(caller, _mesh, seconds=90, heartbeat_ms=0):
    """WatchTopology for 90 s in which nothing changes; the router repeats the topology every 10 s."""
    seen, errors, refused = [], [], []
    start = time.monotonic()

    def read():
        try:
            for _ in caller.watch(heartbeat_ms):
                seen.append(time.monotonic() - start)
            errors.append((time.monotonic() - start, "the stream ended without an error"))
        except NotImplementedError as error:
            refused.append(error)
        except Exception as error:  # pylint: disable=broad-exception-caught
            errors.append((time.monotonic() - start, text_of(error)))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(seconds + 2)
    if refused:
        raise refused[0]
    if errors:
        return Outcome(False, f"ends after {errors[0][0]:.0f} s", errors[0][1])
    expected = 1 if heartbeat_ms else seconds // HEARTBEAT_SECONDS
    return Outcome(len(seen) >= expected, f"{len(seen)} messages")


def silent_watch(caller, mesh, seconds=90):
    """The same without the repetitions."""
    return watch(caller, mesh, seconds, NEVER_MS)


def reached(address, seconds=20):
    """Waits until calls pass."""
    caller = RawCaller(address)
    try:
        grpc.channel_ready_future(caller.channel).result(seconds)
        end = time.monotonic() + seconds
        while True:
            try:
                return caller.forward(FAST_LAYER, rows(1), 5)
            except grpc.RpcError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)
    finally:
        caller.close()
