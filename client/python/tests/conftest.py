"""A small router in Python on port 0: output = (layer + 1) * input, expert i at slot i."""

import asyncio
import concurrent.futures
import pathlib
import sys
import threading

import grpc
import ml_dtypes
import numpy as np
import pytest
from google.rpc import error_details_pb2

import expertmesh
from expertmesh.v1 import (
    balance_pb2,
    control_pb2,
    control_pb2_grpc,
    errors_pb2,
    placement_pb2,
    router_pb2,
    router_pb2_grpc,
    tensor_pb2,
)

# Where the comparisons of arrays are (arrays.py).
sys.path.append(str(pathlib.Path(__file__).parents[3] / "tests" / "integration"))

D_MODEL = 8
PATIENCE = 300
LAYERS = 4
K = 2
DTYPES = {
    tensor_pb2.DTYPE_F32: np.dtype(np.float32),
    tensor_pb2.DTYPE_F16: np.dtype(np.float16),
    tensor_pb2.DTYPE_BF16: np.dtype(ml_dtypes.bfloat16),
}


class Refused(Exception):
    def __init__(self, code, message, reason="", delay_ms=0):
        super().__init__(message)
        self.code, self.message, self.reason, self.delay_ms = code, message, reason, delay_ms

    def status(self):
        """As a router says it."""
        status = errors_pb2.RequestStatus(code=self.code.value[0], message=self.message)
        if self.reason:
            info = error_details_pb2.ErrorInfo(reason=self.reason, domain="expertmesh.v1")
            info.metadata["layer"] = "1"
            status.details.add().Pack(info)
        if self.delay_ms:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromMilliseconds(self.delay_ms)
            status.details.add().Pack(retry)
        return status


class FakeRouter(router_pb2_grpc.RouterServicer, control_pb2_grpc.ControlServicer):
    """`reverse_after`: ForwardStream holds that many answers back and sends them last first."""

    def __init__(self):
        self.requests = []
        self.reverse_after = 1
        self.fail_with = None
        # Experts of each token and dropped (token, expert), where they are not K each and none.
        self.assignments = None
        self.dropped = []
        # Raised by the next requests, one each; None: that one is answered.
        self.refusals = []
        # The end of the next streams, one each: (requests that it answers, its error).
        self.ends = []
        self.streams = 0
        self.watches = 0
        # How watches end; None: well.
        self.watch_end = None
        self.heartbeats = 0
        # What was asked of Control about load, balance and placement.
        self.asked = []
        # Raised by the next of these, one each, once they are carried out.
        self.losses = []
        # What DescribeModel answers, instead of this router's own.
        self.described = None
        self.hold = threading.Event()
        self.hold.set()

    def answer(self, request):
        self.requests.append(request)
        if self.fail_with is not None:
            raise Refused(*self.fail_with)
        refusal = self.refusals.pop(0) if self.refusals else None
        if refusal is not None:
            raise refusal
        if request.layer >= LAYERS:
            raise Refused(
                grpc.StatusCode.INVALID_ARGUMENT, f"layer is {request.layer}; layers are 0 to 3"
            )
        tensor = request.hidden_states
        tokens, d_model = tensor.shape
        if d_model != D_MODEL:
            raise Refused(
                grpc.StatusCode.INVALID_ARGUMENT, f"hidden_states has d_model {d_model}, not 8"
            )
        x = np.frombuffer(tensor.data, DTYPES[tensor.dtype]).reshape(tokens, d_model)
        wire = request.output_dtype or tensor.dtype
        y = (x.astype(np.float32) * (request.layer + 1)).astype(DTYPES[wire])
        response = router_pb2.ForwardResponse(
            request_id=request.request_id,
            epoch=5,
            timing=router_pb2.ForwardTiming(
                queue_us=1,
                route_us=2,
                experts_us=30,
                combine_us=4,
                batch_tokens=tokens,
                nodes=5,
                node_queue_us=6,
                node_compute_us=7,
            ),
            output=tensor_pb2.Tensor(dtype=wire, shape=[tokens, d_model], data=y.tobytes()),
        )
        for token, expert in self.dropped:
            response.dropped.add(token=token, expert=expert)
        if request.return_routing and self.assignments is not None:
            response.routing.assignments_per_token.extend(self.assignments)
            response.routing.expert_ids.extend(range(sum(self.assignments)))
            response.routing.expert_weights.extend([0.5] * sum(self.assignments))
        elif request.return_routing:
            response.routing.experts_per_token = K
            response.routing.expert_ids.extend(list(range(K)) * tokens)
            response.routing.expert_weights.extend([0.75, 0.25] * tokens)
        return response

    def Forward(self, request, context):
        self.hold.wait()
        try:
            return self.answer(request)
        except Refused as refused:
            self.abort(context, refused)

    @staticmethod
    def abort(context, refused):
        details = ("grpc-status-details-bin", refused.status().SerializeToString())
        context.set_trailing_metadata((details,))
        context.abort(refused.code, refused.message)

    def ForwardStream(self, requests, context):
        held = []
        self.streams += 1
        answers, end = self.ends.pop(0) if self.ends else (float("inf"), None)
        for request in requests:
            if request.heartbeat:
                self.heartbeats += 1
                yield router_pb2.ForwardResponse(request_id=request.request_id, heartbeat=True)
                continue
            if answers <= 0:
                self.requests.append(request)  # Taken and not answered.
                self.abort(context, end)
            answers -= 1
            try:
                held.append(self.answer(request))
            except Refused as refused:
                held.append(
                    router_pb2.ForwardResponse(
                        request_id=request.request_id, status=refused.status()
                    )
                )
            if len(held) >= self.reverse_after:
                yield from reversed(held)
                held = []
        yield from reversed(held)

    def DescribeModel(self, request, context):
        return self.described or router_pb2.DescribeModelResponse(
            family="qwen3_moe",
            d_model=D_MODEL,
            layers=[router_pb2.MoeLayer(layer=layer) for layer in range(LAYERS)],
        )

    def WatchTopology(self, request, context):
        """Each watch tells one epoch, twice, and ends."""
        self.watches += 1
        topology = control_pb2.Topology(epoch=self.watches)
        yield control_pb2.WatchTopologyResponse(topology=topology)
        yield control_pb2.WatchTopologyResponse(topology=topology)
        if self.watch_end is not None:
            self.abort(context, self.watch_end)

    def change(self, request, context):
        self.asked.append(request)
        if self.losses:
            self.abort(context, self.losses.pop(0))

    @staticmethod
    def balance(epoch, age_ms):
        summary = balance_pb2.BalanceSummary(term=3, since_tick_ms=age_ms, since_change_ms=age_ms)
        router = balance_pb2.ReportingRouter(router_id="r", age_ms=age_ms)
        return balance_pb2.Balance(summary=summary, epoch=epoch, routers=[router])

    def WatchBalance(self, request, context):
        """Each watch tells one epoch, then that time has passed, and ends."""
        self.watches += 1
        for age_ms in (10, 20):
            balance = self.balance(self.watches, age_ms)
            yield balance_pb2.WatchBalanceResponse(balance=balance)

    def GetLoad(self, request, context):
        self.asked.append(request)
        return control_pb2.GetLoadResponse(epoch=5, window_ms=request.window_ms)

    def GetBalance(self, request, context):
        self.asked.append(request)
        return balance_pb2.GetBalanceResponse(balance=self.balance(6, 10))

    def SetBalance(self, request, context):
        self.change(request, context)
        return balance_pb2.SetBalanceResponse(balance=self.balance(7, 0))

    def GetBias(self, request, context):
        self.asked.append(request)
        layer = balance_pb2.LayerBias(layer=1, values=[0.5, -0.25])
        bias = balance_pb2.Bias(epoch=request.epoch, outline="abc", layers=[layer])
        return balance_pb2.GetBiasResponse(bias=bias)

    def SetBias(self, request, context):
        self.change(request, context)
        return balance_pb2.SetBiasResponse(balance=self.balance(8, 0))

    @staticmethod
    def placement(epoch, age_ms=0):
        moves = placement_pb2.PlacementMoves(phase="loading", bytes_per_second=age_ms)
        return placement_pb2.PlacementState(
            epoch=epoch, moves=moves, since_planned_ms=age_ms, since_moved_ms=age_ms
        )

    def WatchPlacement(self, request, context):
        """As WatchBalance."""
        self.watches += 1
        for age_ms in (10, 20):
            placement = self.placement(self.watches, age_ms)
            yield placement_pb2.WatchPlacementResponse(placement=placement)

    def GetPlacement(self, request, context):
        self.asked.append(request)
        return placement_pb2.GetPlacementResponse(placement=self.placement(6))

    def SetPlacement(self, request, context):
        self.change(request, context)
        return placement_pb2.SetPlacementResponse(placement=self.placement(7))

    def PlanPlacement(self, request, context):
        self.asked.append(request)
        proposal = placement_pb2.PlacementProposal(reason="planned")
        return placement_pb2.PlanPlacementResponse(proposal=proposal)

    def ApplyPlacement(self, request, context):
        self.change(request, context)
        return placement_pb2.ApplyPlacementResponse(placement=self.placement(8))

    def GetTopology(self, request, context):
        node = control_pb2.TopologyNode(
            address="node:1",
            hidden_states_dtype=tensor_pb2.DTYPE_BF16,
            partials_dtype=tensor_pb2.DTYPE_INT8_BLOCK128,
        )
        topology = control_pb2.Topology(epoch=5, ready=True, nodes=[node])
        return control_pb2.GetTopologyResponse(topology=topology)


def health_check(request, context):
    if request == b"":
        return b"\x08\x01"
    if request == b"\x0a\x04down":
        return b"\x08\x02"
    context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")


class Listener(grpc.ServerInterceptor):
    """Notes what calls are made, and with which metadata."""

    def __init__(self, calls):
        self._calls = calls

    def intercept_service(self, continuation, details):
        self._calls.append((details.method, dict(details.invocation_metadata)))
        return continuation(details)


@pytest.fixture
def router():
    """The servicer; `router.address` is where it listens, `router.calls` which methods were called with which
    metadata."""
    servicer = FakeRouter()
    servicer.calls = []
    server = grpc.server(
        concurrent.futures.ThreadPoolExecutor(16),
        interceptors=[Listener(servicer.calls)],
        options=[
            ("grpc.max_receive_message_length", 1 << 20),
            ("grpc.so_reuseport", 0),
        ],
    )
    router_pb2_grpc.add_RouterServicer_to_server(servicer, server)
    control_pb2_grpc.add_ControlServicer_to_server(servicer, server)
    server.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler(
                "grpc.health.v1.Health",
                {"Check": grpc.unary_unary_rpc_method_handler(health_check)},
            )
        ]
    )
    servicer.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield servicer
    servicer.hold.set()
    server.stop(None).wait()


@pytest.fixture(params=["blocking", "asyncio"])
def ask(request, router):
    """ask(call): the answer to call(client)."""

    def blocking(call):
        with expertmesh.Client(router.address, timeout=PATIENCE) as client:
            return call(client)

    def awaited(call):
        async def run():
            async with expertmesh.AsyncClient(router.address, timeout=PATIENCE) as client:
                return await call(client)

        return asyncio.run(run())

    return blocking if request.param == "blocking" else awaited
