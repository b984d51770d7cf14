"""A model of the transformers library that is attached to a mesh of real programs, seen by a collector."""

import tiny_models
import torch

from expertmesh import hf
from mesh import PATIENCE, shards
from trace_fixtures import COMPUTE, FORWARD, export_to

# pylint: disable-next=unused-import
from trace_fixtures import receiver, user  # noqa: F401  (fixtures)

FAMILY = "qwen3_moe"
TOKENS = 12


def test_each_layer_of_a_call_is_one_span_of_one_trace(mesh, tmp_path, receiver, user):
    model = tiny_models.make(FAMILY)
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    export_to(mesh, receiver)
    mesh.start(folder, shards(2), "--trace-ratio=0")
    layers = tiny_models.MOE_LAYERS[FAMILY]
    with hf.attach(model, mesh.router.address, timeout=PATIENCE), torch.no_grad():
        with user.start_as_current_span("prefill") as span:
            model(input_ids=tiny_models.tokens(1, TOKENS))
    trace_id = f"{span.get_span_context().trace_id:032x}"

    def complete(spans):
        spans = spans.trace(trace_id)
        return len(spans.named("expertmesh.dispatch")) == len(layers) and spans.named("prefill")

    spans = receiver.wait_for(complete).trace(trace_id)
    root = spans.only("prefill")
    calls = spans.children(root)
    assert [call.attributes["expertmesh.layer"] for call in calls] == list(layers)
    for call in calls:
        assert (call.name, call.kind, call.service) == (FORWARD, "CLIENT", "user")
        assert call.attributes["expertmesh.tokens"] == TOKENS
        request = spans.children(call).only(FORWARD, kind="SERVER")
        dispatch = spans.children(request).only("expertmesh.dispatch")
        assert dispatch.attributes["expertmesh.layer"] == call.attributes["expertmesh.layer"]
        for each in spans.children(dispatch).named(COMPUTE, kind="CLIENT"):
            assert spans.children(each).only(COMPUTE).service == "expertmesh-expert"
    assert [each.name for each in spans.roots()] == ["prefill"]
