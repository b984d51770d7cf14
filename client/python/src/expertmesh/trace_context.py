"""W3C trace context, Level 2: what a caller hands over, checked and put in the form that goes on the wire."""

from __future__ import annotations

import re
from typing import Any, List, NamedTuple, Optional

# Version 00 is exactly that long; later ones may go on after a dash.
_LENGTH = 55
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", re.ASCII)
_MEMBER = re.compile(r"[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
_MOST_MEMBERS = 32
# Characters, as many as routers pass on; W3C asks for 512 at least.
_MOST_TRACESTATE = 2048
# A member that is longer is the first to go.
_LONG_MEMBER = 128

SAMPLED = 0x01
RANDOM_TRACE_ID = 0x02


class TraceContext(NamedTuple):
    """A valid one. flags: SAMPLED, RANDOM_TRACE_ID. tracestate: of any length, "" for none."""

    trace_id: int
    span_id: int
    flags: int
    tracestate: str

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.flags:02x}"


def read(traceparent: Any, tracestate: Any = None) -> Optional[TraceContext]:
    """None where `traceparent` is not valid: the request then begins a trace of its own, whatever `tracestate` is.

    Flags that Level 2 does not know are not passed on; a tracestate with a fault is dropped whole.
    """
    if not isinstance(traceparent, str):
        return None
    text = traceparent.strip(" \t")
    match = _TRACEPARENT.match(text)
    if match is None:
        return None
    version, trace_id, span_id, flags = match.groups()
    rest = text[_LENGTH:]
    if version == "ff" or (rest and (version == "00" or rest[0] != "-")):
        return None
    context = TraceContext(
        int(trace_id, 16),
        int(span_id, 16),
        int(flags, 16) & (SAMPLED | RANDOM_TRACE_ID),
        _members(tracestate),
    )
    return context if context.trace_id and context.span_id else None


def _members(tracestate: Any) -> str:
    if not isinstance(tracestate, str):
        return ""
    # Empty members are allowed, and mean nothing.
    members = [member for part in tracestate.split(",") if (member := part.strip(" \t"))]
    if len(members) > _MOST_MEMBERS or not all(map(_MEMBER.fullmatch, members)):
        return ""
    keys = {member.partition("=")[0] for member in members}
    return ",".join(members) if len(keys) == len(members) else ""


def bounded(tracestate: str) -> str:
    """What of a valid tracestate is sent: without long members, then without the last ones, if it is too long."""
    if len(tracestate) <= _MOST_TRACESTATE:
        return tracestate
    members: List[str] = tracestate.split(",")
    while sum(map(len, members)) + len(members) - 1 > _MOST_TRACESTATE:
        long = [i for i, member in enumerate(members) if len(member) > _LONG_MEMBER]
        del members[long[-1] if long else -1]
    return ",".join(members)
