"""Spans as an OTLP receiver got them, in Python's terms, and found by name, trace, parent and link."""

import dataclasses

from opentelemetry.proto.trace.v1 import trace_pb2


def _value(value):
    """What an AnyValue holds."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    held = getattr(value, kind)
    if kind == "array_value":
        return [_value(each) for each in held.values]
    if kind == "kvlist_value":
        return attributes_of(held.values)
    return held


def attributes_of(pairs):
    """A dict of KeyValues. Raises AssertionError when a key is there twice: a viewer shows one of them."""
    made = {pair.key: _value(pair.value) for pair in pairs}
    assert len(made) == len(pairs), f"a key is there twice: {sorted(pair.key for pair in pairs)}"
    return made


@dataclasses.dataclass(frozen=True)
class Event:
    name: str
    attributes: dict
    time_ns: int


@dataclasses.dataclass(frozen=True)
class Link:
    """To a span of this or another trace; ids are lower-case hex."""

    trace_id: str
    span_id: str
    attributes: dict
    tracestate: str
    flags: int


@dataclasses.dataclass(frozen=True)
class Span:
    """kind: "SERVER" and so on. status: "UNSET", "OK" or "ERROR". parent_id: "" for none. resource, scope: of
    what made it. dropped: (attributes, events, links) that it does not tell."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    tracestate: str
    flags: int
    start_ns: int
    end_ns: int
    attributes: dict
    events: list
    links: list
    dropped: tuple
    status: str
    message: str
    resource: dict
    scope: tuple

    @property
    def service(self):
        return self.resource.get("service.name", "?")

    @property
    def nanoseconds(self):
        return self.end_ns - self.start_ns

    def __str__(self):
        ending = f" {self.status}" if self.status == "ERROR" else ""
        return f"{self.service}: {self.name} [{self.kind}{ending}]"


def _span(proto, resource, scope):
    return Span(
        name=proto.name,
        kind=trace_pb2.Span.SpanKind.Name(proto.kind).removeprefix("SPAN_KIND_"),
        trace_id=proto.trace_id.hex(),
        span_id=proto.span_id.hex(),
        parent_id=proto.parent_span_id.hex(),
        tracestate=proto.trace_state,
        flags=proto.flags,
        start_ns=proto.start_time_unix_nano,
        end_ns=proto.end_time_unix_nano,
        attributes=attributes_of(proto.attributes),
        events=[Event(e.name, attributes_of(e.attributes), e.time_unix_nano) for e in proto.events],
        links=[
            Link(
                link.trace_id.hex(),
                link.span_id.hex(),
                attributes_of(link.attributes),
                link.trace_state,
                link.flags,
            )
            for link in proto.links
        ],
        dropped=(
            proto.dropped_attributes_count,
            proto.dropped_events_count,
            proto.dropped_links_count,
        ),
        status=trace_pb2.Status.StatusCode.Name(proto.status.code).removeprefix("STATUS_CODE_"),
        message=proto.status.message,
        resource=resource,
        scope=scope,
    )


def spans_of(request):
    """All spans of an ExportTraceServiceRequest. Raises AssertionError where one breaks OTLP's own rules."""
    made = []
    for group in request.resource_spans:
        resource = attributes_of(group.resource.attributes)
        for scoped in group.scope_spans:
            scope = scoped.scope.name, scoped.scope.version
            for proto in scoped.spans:
                assert len(proto.trace_id) == 16 and any(proto.trace_id), proto
                assert len(proto.span_id) == 8 and any(proto.span_id), proto
                assert len(proto.parent_span_id) in (0, 8), proto
                assert proto.name and proto.end_time_unix_nano >= proto.start_time_unix_nano > 0, proto
                made.append(_span(proto, resource, scope))
    return made


class Spans:
    """Some spans, in the order in which they came. Iterable."""

    def __init__(self, spans):
        self._spans = list(spans)
        self.by_id = {(span.trace_id, span.span_id): span for span in self._spans}
        assert len(self.by_id) == len(self._spans), "a span came twice"

    def __iter__(self):
        return iter(self._spans)

    def __len__(self):
        return len(self._spans)

    def named(self, name=None, service=None, kind=None, **attributes):
        """Those with that name, service and kind, and these attributes, whose dots are written `__`."""
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}
        return Spans(
            span
            for span in self
            if name in (None, span.name)
            and service in (None, span.service)
            and kind in (None, span.kind)
            and all(span.attributes.get(key) == value for key, value in wanted.items())
        )

    def only(self, *args, **kwargs):
        """The one that `named` finds; AssertionError when it is not one."""
        found = self.named(*args, **kwargs)
        assert len(found) == 1, f"{len(found)} spans {args} {kwargs} in\n{self.tree()}"
        return next(iter(found))

    def trace(self, trace_id):
        return Spans(span for span in self if span.trace_id == trace_id)

    @property
    def trace_ids(self):
        """In the order in which they came."""
        return list(dict.fromkeys(span.trace_id for span in self))

    def parent(self, span):
        """None for a root, and where the parent is not here."""
        return self.by_id.get((span.trace_id, span.parent_id))

    def children(self, span):
        key = span.trace_id, span.span_id
        found = [each for each in self if (each.trace_id, each.parent_id) == key]
        return Spans(sorted(found, key=lambda each: each.start_ns))

    def roots(self):
        """Those whose parent is not here."""
        return Spans(span for span in self if self.parent(span) is None)

    def linked(self, span):
        """What its links name and is here."""
        keys = [(link.trace_id, link.span_id) for link in span.links]
        return Spans(self.by_id[key] for key in keys if key in self.by_id)

    def linking(self, span):
        """Those with a link to it."""
        key = span.trace_id, span.span_id
        return Spans(
            each for each in self if key in [(link.trace_id, link.span_id) for link in each.links]
        )

    def tree(self):
        """One line for each span, children under their parents in the order of their starts; a root whose parent
        is not here says so, and links are named by what they lead to.

            expertmesh-router: expertmesh.v1.Router/Forward [SERVER]
              expertmesh-router: expertmesh.dispatch [INTERNAL] -> expertmesh-expert: expert.batch [INTERNAL]
        """
        lines = []

        def add(span, depth):
            orphan = " (its parent is not here)" if not depth and span.parent_id else ""
            lead = [str(self.by_id.get((link.trace_id, link.span_id), "?")) for link in span.links]
            links = f" -> {', '.join(lead)}" if lead else ""
            lines.append("  " * depth + str(span) + orphan + links)
            for child in self.children(span):
                add(child, depth + 1)

        for root in sorted(self.roots(), key=lambda span: span.start_ns):
            add(root, 0)
        return "\n".join(lines)
