#!/usr/bin/env python3
"""What a span costs a call of the Python client, in microseconds of CPU of its thread: the whole of it, from the
request's context to the last attribute. Each line is a process of its own, since OpenTelemetry cannot be unloaded.

    build/venv/bin/python tests/bench/trace_cost.py [--calls 20000]
"""

import argparse
import subprocess
import sys
import time

MODES = {
    "unused": "OpenTelemetry not imported",
    "given": "the same, with a traceparent in the options",
    "api": "opentelemetry-api, no SDK",
    "unsampled": "SDK, sampled out",
    "sampled": "SDK, recorded and queued for export",
}


def use_opentelemetry(mode):
    from opentelemetry import trace

    if mode == "api":
        return
    from opentelemetry.sdk.trace import TracerProvider, sampling
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Nowhere(SpanExporter):
        def export(self, spans):
            return SpanExportResult.SUCCESS

    ratio = 1.0 if mode == "sampled" else 0.0
    provider = TracerProvider(sampler=sampling.ParentBased(sampling.TraceIdRatioBased(ratio)))
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    trace.set_tracer_provider(provider)


def measure(mode, calls):
    """Microseconds a call; the best of five, as others use the cores as well."""
    from expertmesh import trace_context, tracing
    from expertmesh.v1 import router_pb2

    if mode not in ("unused", "given"):
        use_opentelemetry(mode)
    tracer = tracing.Tracer("127.0.0.1:50050")
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" if mode == "given" else None
    request = router_pb2.ForwardRequest(layer=1)
    request.hidden_states.shape.extend([1, 8])
    times = []
    for _ in range(5):
        begun = time.thread_time()
        for _ in range(calls):
            asked = trace_context.read(given)
            with tracer.begin("expertmesh.v1.Router/Forward", request, asked) as span:
                span.metadata  # pylint: disable=pointless-statement
        times.append((time.thread_time() - begun) / calls * 1e6)
    return min(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--calls", type=int, default=20000, help="in each of five rounds")
    parser.add_argument("--mode", choices=MODES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.mode:
        print(f"{measure(arguments.mode, arguments.calls):.1f}")
        return
    for mode, what in MODES.items():
        argv = [sys.executable, __file__, "--mode", mode, "--calls", str(arguments.calls)]
        cost = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
        print(f"{cost:>6} us  {what}")


if __name__ == "__main__":
    main()
