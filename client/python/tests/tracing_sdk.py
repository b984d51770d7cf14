"""OpenTelemetry's real SDK, keeping what it would export. A process has one provider for good."""

from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class Faulty(SpanProcessor):
    """Raises where `broken` says so."""

    broken = frozenset()

    def on_start(self, span, parent_context=None):
        if "start" in self.broken:
            raise RuntimeError("a processor that fails")

    def on_end(self, span):
        if "end" in self.broken:
            raise RuntimeError("a processor that fails")


EXPORTER = InMemorySpanExporter()
FAULTY = Faulty()
_provider = TracerProvider()
_provider.add_span_processor(FAULTY)
_provider.add_span_processor(SimpleSpanProcessor(EXPORTER))
trace.set_tracer_provider(_provider)
TRACER = trace.get_tracer("the program around")


def spans(scope="expertmesh"):
    """Those that have ended, of the client or of another scope, in the order of their ends."""
    return [span for span in EXPORTER.get_finished_spans() if span.instrumentation_scope.name == scope]


def parent(trace_id, span_id, flags, tracestate=""):
    """A span of elsewhere."""
    return trace.NonRecordingSpan(
        trace.SpanContext(
            trace_id, span_id, True, trace.TraceFlags(flags), trace.TraceState.from_header([tracestate])
        )
    )


def sent(span):
    """A span's context as traceparent."""
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"
