"""W3C trace context: what is taken from a caller, and what is sent on. The cases are those of the W3C's own suite."""

import pathlib
import subprocess
import sys

import pytest

from expertmesh import trace_context

TRACE, SPAN = "12345678901234567890123456789012", "1234567890123456"
PARENT = f"00-{TRACE}-{SPAN}-01"
# What a caller may hand over, and what that is on the wire.
TAKEN = {
    PARENT: PARENT,
    f"00-{TRACE}-{SPAN}-00": f"00-{TRACE}-{SPAN}-00",
    # The flag of random trace ids goes on, what no one knows yet does not.
    f"00-{TRACE}-{SPAN}-02": f"00-{TRACE}-{SPAN}-02",
    f"00-{TRACE}-{SPAN}-03": f"00-{TRACE}-{SPAN}-03",
    f"00-{TRACE}-{SPAN}-ff": f"00-{TRACE}-{SPAN}-03",
    f"00-{TRACE}-{SPAN}-04": f"00-{TRACE}-{SPAN}-00",
    f"00-{'0' * 31}1-{'0' * 15}1-01": f"00-{'0' * 31}1-{'0' * 15}1-01",
    # Later versions are read as far as they are known, and sent on as this one.
    f"cc-{TRACE}-{SPAN}-01": PARENT,
    f"01-{TRACE}-{SPAN}-01": PARENT,
    f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like": PARENT,
    f"fe-{TRACE}-{SPAN}-01-": PARENT,
    f" \t{PARENT} \t": PARENT,
}
REFUSED = [
    "",
    "nonsense",
    PARENT + "-",
    PARENT + "-what-the-future-will-not-be-like",
    PARENT + ".",
    PARENT + "0",
    f"cc-{TRACE}-{SPAN}-01.what-the-future-will-not-be-like",
    f"cc-{TRACE}-{SPAN}-010",
    f"ff-{TRACE}-{SPAN}-01",
    f"ff-{TRACE}-{SPAN}-01-more",
    f"00-{'0' * 32}-{SPAN}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    # Lengths of each part.
    f"0-{TRACE}-{SPAN}-01",
    f"000-{TRACE}-{SPAN}-01",
    f"00-{TRACE}0-{SPAN}-01",
    f"00-{TRACE[1:]}-{SPAN}-01",
    f"00-{TRACE}-{SPAN}0-01",
    f"00-{TRACE}-{SPAN[1:]}-01",
    f"00-{TRACE}-{SPAN}-1",
    f"00-{TRACE}-{SPAN}-001",
    f"00-{TRACE}-{SPAN}",
    f"00-{TRACE}-{SPAN}-",
    # Letters.
    f".0-{TRACE}-{SPAN}-01",
    f"0.-{TRACE}-{SPAN}-01",
    f"00-.{TRACE[1:]}-{SPAN}-01",
    f"00-{TRACE[:-1]}.-{SPAN}-01",
    f"00-{TRACE}-.{SPAN[1:]}-01",
    f"00-{TRACE}-{SPAN[:-1]}.-01",
    f"00-{TRACE}-{SPAN}-.0",
    f"00-{TRACE}-{SPAN}-0.",
    f"00-{TRACE[:-1]}A-{SPAN}-01",
    f"00-{TRACE}-{SPAN[:-1]}B-01",
    f"0C-{TRACE}-{SPAN}-01",
    f"00-{TRACE}-{SPAN}-0A",
    f"00_{TRACE}_{SPAN}_01",
    # Digits that are none here, another line, a second value.
    f"00-{'١' * 32}-{SPAN}-01",
    PARENT + "\n",
    f"{PARENT},{PARENT}",
    PARENT.encode(),
    7,
    True,
]
KEY = "0" + "a_-*/@z" * 36 + "123"
VALUE = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) not in ",=")
MEMBERS = [f"k{i}=v{i}" for i in range(33)]
STATES = {
    "foo=1": "foo=1",
    "foo=1,bar=2": "foo=1,bar=2",
    "foo=1 \t , \t bar=2, \t baz=3": "foo=1,bar=2,baz=3",
    "foo=1,": "foo=1",
    ",foo=1,,bar=2": "foo=1,bar=2",
    "": "",
    "fw529a3039@dt=FfAB,0@x=1": "fw529a3039@dt=FfAB,0@x=1",
    "foo= 1": "foo= 1",
    f"{KEY}={'v' * 256}": f"{KEY}={'v' * 256}",
    f"foo={VALUE}": f"foo={VALUE}",
    ",".join(MEMBERS[:32]): ",".join(MEMBERS[:32]),
    # One fault, and all of it goes.
    ",".join(MEMBERS): "",
    "foo=1,bar=2,foo=1": "",
    "foo": "",
    "foo =1": "",
    "foo=": "",
    "=1": "",
    "foo=1=2": "",
    "FOO=1": "",
    "foo.bar=1": "",
    "_foo=1": "",
    "foo=1,bär=2": "",
    "foo=ü": "",
    "foo=a\tb": "",
    "foo=a\nb": "",
    f"{KEY}a=1": "",
    f"foo={'v' * 257}": "",
}


def test_the_cases_are_at_the_limits():
    assert len(KEY) == 256 and len(VALUE) < 256


@pytest.mark.parametrize("given", TAKEN)
def test_taken(given):
    assert trace_context.read(given).traceparent == TAKEN[given]


@pytest.mark.parametrize("given", REFUSED)
def test_refused(given):
    assert trace_context.read(given, "foo=1") is None


@pytest.mark.parametrize("given", STATES)
def test_tracestate(given):
    read = trace_context.read(PARENT, given)
    assert read.traceparent == PARENT and read.tracestate == STATES[given]


@pytest.mark.parametrize("given", [None, b"foo=1", 7])
def test_tracestate_of_another_type(given):
    assert trace_context.read(PARENT, given).tracestate == ""


def test_a_long_tracestate_loses_long_members_first_and_then_the_last():
    short = [f"k{i:02}={'v' * 100}" for i in range(17)]
    long = [f"l{i}={'v' * 200}" for i in range(3)]
    fits = [*short[:12], *long]
    assert len(",".join(fits)) <= 2048
    assert trace_context.bounded(",".join(fits)) == ",".join(fits)
    mixed = [long[0], *short[:5], long[1], *short[5:], long[2]]
    assert trace_context.bounded(",".join(mixed)) == ",".join([long[0], *short])
    many = [f"k{i:02}={'v' * 120}" for i in range(32)]
    assert trace_context.bounded(",".join(many)) == ",".join(many[:16])
    at_the_limit = f"{','.join(many[:16])},k={'v' * (2048 - 16 * 125 - 2)}"
    assert len(at_the_limit) == 2048
    assert trace_context.bounded(at_the_limit) == at_the_limit
    assert trace_context.bounded(at_the_limit + "v") == ",".join(many[:16])


CALLER = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(name)

if sys.argv[2] == "absent":
    sys.meta_path.insert(0, Absent())
import expertmesh, numpy
import test_trace_context as cases

rows = numpy.ones((1, 8), numpy.float32)
with expertmesh.Client(sys.argv[1]) as client:
    for given in [*cases.TAKEN, *cases.REFUSED, None]:
        options = expertmesh.ForwardOptions(traceparent=given, tracestate="foo=1")
        assert client.forward(0, rows, options).output.shape == (1, 8)
        (answer,) = client.forward_many([(0, rows)], options)
        answer.unwrap()
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""


@pytest.mark.parametrize("opentelemetry", ["absent", "unused"])
def test_a_program_without_opentelemetry(router, opentelemetry):
    """Contexts go along, invalid ones never; the package is not asked for, nor imported where it is there."""
    argv = [sys.executable, "-c", CALLER, router.address, opentelemetry]
    tests = str(pathlib.Path(__file__).parent)
    done = subprocess.run(argv, cwd=tests, env={"PYTHONPATH": tests}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wanted = [(TAKEN[given], "foo=1") for given in TAKEN] + [("", "")] * (len(REFUSED) + 1)
    for sent in (router.requests[::2], router.requests[1::2]):
        assert [(request.traceparent, request.tracestate) for request in sent] == wanted
    in_metadata = [
        (metadata.get("traceparent", ""), metadata.get("tracestate", ""))
        for method, metadata in router.calls
        if method.endswith("/Forward")
    ]
    assert in_metadata == wanted
