"""Checks what Python's gRPC can do with a router: one line for each of the columns.

check.py ROUTER GOLDEN_DIR
"""

import pathlib
import sys

import grpc
from expertmesh.v1 import control_pb2, control_pb2_grpc, router_pb2, router_pb2_grpc, tensor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status

from tensors import unpack_f32, worst_error

SECONDS = 60
BIG_BYTES = 60_000_000


class Wrong(Exception):
    """An answer that is not what it should be."""


def require(condition, said):
    if not condition:
        raise Wrong(said)


class Checker:
    """A method for each column."""

    def __init__(self, address, golden):
        self.channel = grpc.insecure_channel(
            address, options=[("grpc.max_receive_message_length", -1)]
        )
        self.router = router_pb2_grpc.RouterStub(self.channel)
        self.hidden_states = (golden / "hidden_states.f32").read_bytes()
        self.expected = unpack_f32((golden / "output.f32").read_bytes())
        self.layer = self.d_model = 0

    def request(self, layer, data, request_id=0):
        shape = [len(data) // 4 // self.d_model, self.d_model]
        tensor = tensor_pb2.Tensor(dtype=tensor_pb2.DTYPE_F32, shape=shape, data=data)
        return router_pb2.ForwardRequest(request_id=request_id, layer=layer, hidden_states=tensor)

    def require_golden(self, data):
        actual = unpack_f32(data)
        require(len(actual) == len(self.expected), f"{len(actual)} values")
        token, error = worst_error(actual, self.expected, self.d_model)
        require(error <= 1e-5, f"error {error:.2e} at token {token}")

    def unary(self):
        model = self.router.DescribeModel(router_pb2.DescribeModelRequest(), timeout=SECONDS)
        require(model.layers, "the model has no layer")
        self.layer, self.d_model = model.layers[0].layer, model.d_model

    def stream(self):
        requests = [self.request(self.layer, self.hidden_states, i) for i in (1, 2, 3)]
        answers = list(self.router.ForwardStream(iter(requests), timeout=SECONDS))
        ids = sorted(answer.request_id for answer in answers)
        require(ids == [1, 2, 3], f"answers to {ids}")
        for answer in answers:
            self.require_golden(answer.output.data)

    def watch(self):
        control = control_pb2_grpc.ControlStub(self.channel)
        watch = control.WatchTopology(control_pb2.WatchTopologyRequest(), timeout=SECONDS)
        topology = next(watch).topology
        watch.cancel()
        require(topology.ready and topology.nodes, f"the topology is {topology}")

    def health(self):
        stub = health_pb2_grpc.HealthStub(self.channel)
        for service in ("", "ready", "expertmesh.v1.Control"):
            request = health_pb2.HealthCheckRequest(service=service)
            status = stub.Check(request, timeout=SECONDS).status
            name = health_pb2.HealthCheckResponse.ServingStatus.Name(status)
            require(name == "SERVING", f"{service!r} is {name}")

    def reflection(self):
        database = ProtoReflectionDescriptorDatabase(self.channel)
        services = database.get_services()
        require("expertmesh.v1.Router" in services, f"no Router in {services}")
        forward = DescriptorPool(database).FindMethodByName("expertmesh.v1.Router.Forward")
        require(forward.input_type.name == "ForwardRequest", f"Forward takes {forward.input_type}")

    def big(self):
        size = len(self.hidden_states)
        data = self.hidden_states * (BIG_BYTES // size)
        output = self.router.Forward(self.request(self.layer, data), timeout=SECONDS).output.data
        require(len(output) == len(data), f"{len(output)} bytes, not {len(data)}")
        self.require_golden(output[:size])
        self.require_golden(output[-size:])

    def errors(self):
        wrong = self.request(self.layer + 1000, bytes(4 * self.d_model))
        try:
            self.router.Forward(wrong, timeout=SECONDS)
            raise Wrong("unary: no error")
        except grpc.RpcError as error:
            status = rpc_status.from_call(error)
            require(status is not None, f"unary: no details: {error}")
            require_names_layer(status)
        (answer,) = self.router.ForwardStream(iter([wrong]), timeout=SECONDS)
        require_names_layer(status_pb2.Status.FromString(answer.status.SerializeToString()))

    def bits(self):
        answer = self.router.Forward(self.request(self.layer, self.hidden_states), timeout=SECONDS)
        self.require_golden(answer.output.data)


def require_names_layer(status):
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        for message in (info, request):
            detail.Unpack(message)
    fields = [violation.field for violation in request.field_violations]
    require(
        status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        and info.reason == "INVALID_FIELD"
        and fields == ["layer"],
        f"code {status.code}, reason {info.reason}, fields {fields}",
    )


COLUMNS = ("unary", "stream", "watch", "health", "reflection", "big", "errors", "bits")


def main(arguments):
    if len(arguments) != 2:
        print("usage: check.py ROUTER GOLDEN_DIR", file=sys.stderr)
        return 2
    checker = Checker(arguments[0], pathlib.Path(arguments[1]))
    code = 0
    for column in COLUMNS:
        try:
            getattr(checker, column)()
            print(f"{column} yes", flush=True)
        except Exception as error:  # pylint: disable=broad-except  # Each column has its line.
            details = error.details() if isinstance(error, grpc.RpcError) else repr(error)
            print(f"{column} no:", *details.split(), flush=True)
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
