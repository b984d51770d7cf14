"""What suites share that look at spans of a mesh as a collector gets them."""

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from mesh import shards
from otlp_receiver import OtlpReceiver

FORWARD = "expertmesh.v1.Router/Forward"
STREAM = "expertmesh.v1.Router/ForwardStream"
COMPUTE = "expertmesh.internal.v1.Expert/Compute"


@pytest.fixture
def receiver():
    with OtlpReceiver() as made:
        yield made


def export_to(mesh, receiver, **variables):
    """Programs that are started from now on export to `receiver`."""
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        **variables,
    }
    mesh.launcher = ["env", *(f"{name}={value}" for name, value in variables.items())]


def start(mesh, checkpoint, receiver, *flags, **variables):
    """A mesh whose router exports to `receiver`."""
    export_to(mesh, receiver, **variables)
    return mesh.start(checkpoint.path, shards(2), *flags)


@pytest.fixture
def user(receiver):
    """A program that traces itself with OpenTelemetry's SDK, and exports to the same place."""
    provider = TracerProvider(resource=Resource({"service.name": "user"}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(receiver.endpoint, insecure=True)))
    before = trace._TRACER_PROVIDER  # pylint: disable=protected-access
    trace._TRACER_PROVIDER = provider  # pylint: disable=protected-access
    yield provider.get_tracer("user")
    trace._TRACER_PROVIDER = before  # pylint: disable=protected-access
