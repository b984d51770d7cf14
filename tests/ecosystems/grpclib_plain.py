"""What grpclib brings itself: the connection, health and reflection. betterproto2 has these from it, too."""

from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.health.v1.health_grpc import HealthStub
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpclib.reflection.v1.reflection_grpc import ServerReflectionStub
from grpclib.reflection.v1.reflection_pb2 import ServerReflectionRequest

import columns
from columns import expect

SECONDS = 60


def connect(address):
    host, port = address.split(":")
    windows = Configuration(http2_connection_window_size=2**26, http2_stream_window_size=2**26)
    return Channel(host, int(port), config=windows)


async def health(channel):
    answer = await HealthStub(channel).Check(HealthCheckRequest(service="ready"), timeout=SECONDS)
    expect(answer.status == HealthCheckResponse.SERVING, f"ready is {answer.status}")


async def reflection(channel):
    asked = ServerReflectionRequest(list_services="")
    (answer,) = await ServerReflectionStub(channel).ServerReflectionInfo([asked], timeout=SECONDS)
    listed = {service.name for service in answer.list_services_response.service}
    expect(set(columns.SERVICES) <= listed, f"lists {sorted(listed)}")
