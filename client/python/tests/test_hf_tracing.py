"""Spans of a model of transformers that is attached to a mesh, through a real client."""

import numpy as np
import pytest
import tracing_sdk
from torch_mesh import generate, make, torch
from tracing_sdk import TRACER, sent, spans

import expertmesh
from expertmesh import hf
from expertmesh.v1 import router_pb2, tensor_pb2

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def attached(router):
    """A model that is attached to `router`, and the stand-in mesh that computes the answers."""
    tracing_sdk.EXPORTER.clear()
    model, mesh = make()
    router.described = mesh.describe()

    def answer(request):
        router.requests.append(request)
        rows = np.frombuffer(request.hidden_states.data, np.float32).reshape(request.hidden_states.shape)
        options = expertmesh.ForwardOptions()
        output = mesh.forward(request.layer, torch.from_numpy(rows.copy()), options).output.numpy()
        tensor = tensor_pb2.Tensor(dtype=tensor_pb2.DTYPE_F32, shape=rows.shape, data=output.tobytes())
        return router_pb2.ForwardResponse(output=tensor)

    router.answer = answer
    with hf.attach(model, router.address):
        tracing_sdk.EXPORTER.clear()  # There is one already: `attach` asks what the mesh serves.
        yield model, mesh


def test_each_call_of_a_layer_is_one_span(attached, router):
    model, mesh = attached
    with TRACER.start_as_current_span("generate") as around:
        generate(model)
    made = spans()
    told = [(span.attributes["expertmesh.layer"], span.attributes["expertmesh.tokens"]) for span in made]
    assert told == [(call["layer"], call["shape"][0]) for call in mesh.calls] and len(told) >= 16
    assert {span.name for span in made} == {"expertmesh.v1.Router/Forward"}
    assert {span.parent.span_id for span in made} == {around.context.span_id}
    assert [sent(span) for span in made] == [request.traceparent for request in router.requests]


def test_a_given_trace_is_the_parent(attached, router):
    model, _ = attached
    with TRACER.start_as_current_span("another trace"), hf.trace(PARENT, "a=1"):
        generate(model)
    made = spans()
    assert made and {f"00-{s.context.trace_id:032x}-{s.parent.span_id:016x}-01" for s in made} == {PARENT}
    assert {request.tracestate for request in router.requests} == {"a=1"}
