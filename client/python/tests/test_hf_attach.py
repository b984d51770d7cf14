"""expertmesh.hf.attach without servers: a stand-in computes with the model's own torch blocks, so that
replacing them must not change one bit."""

import copy
import pathlib
import pickle
import weakref

import pytest
from arrays import assert_close, assert_same, assert_same_bits
from torch_mesh import V5, TorchMesh, generate, logits, make, tiny_models, torch

import expertmesh
from expertmesh import hf
from expertmesh.hf import families
from expertmesh.hf.block import MeshBlock, real_tokens
from expertmesh.v1 import router_pb2


def weights_of_experts(model):
    """Names of what the mesh computes with."""
    parts = ("experts", "shared_experts", "shared_expert", "shared_mlp", "router", "gate")
    return [
        name
        for name, _ in [*model.named_parameters(), *model.named_buffers()]
        if set(name.split(".")) & set(parts)
    ]


@pytest.mark.parametrize("family", tiny_models.BUILDERS)
def test_only_the_place_of_computation_changes(family):
    model, mesh = make(family)
    inputs = tiny_models.inputs(family, batch=3, length=40)
    before, said = logits(model, **inputs), generate(model)
    assert weights_of_experts(model)
    attachment = hf.attach(model, mesh)
    assert attachment.layers == tiny_models.MOE_LAYERS[family]
    assert not weights_of_experts(model)
    assert_same(logits(model, **inputs), before)
    assert_same(generate(model), said)
    assert {call["layer"] for call in mesh.calls} == set(tiny_models.MOE_LAYERS[family])


@pytest.mark.parametrize("family", tiny_models.BUILDERS)
def test_kept_weights_come_back(family):
    model, mesh = make(family)
    inputs = tiny_models.inputs(family, length=10)
    before = logits(model, **inputs)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with hf.attach(model, mesh, keep_weights=True) as attachment:
        assert model.expertmesh is attachment
    count = len(mesh.calls)
    assert_same(logits(model, **inputs), before)
    assert len(mesh.calls) == count
    assert not hasattr(model, "expertmesh")
    after = model.state_dict()
    assert list(after) == list(state)
    for name in state:
        assert_same(after[name], state[name], name)
    attachment.detach()


@pytest.mark.parametrize("how", [copy.deepcopy, pickle.dumps])
def test_an_attached_model_is_not_copied(how):
    model, mesh = make("mixtral")
    with hf.attach(model, mesh, keep_weights=True) as attachment:
        for what in (model, attachment):
            with pytest.raises(TypeError, match="attached to a mesh cannot be copied.*detach it first"):
                how(what)
    how(model)


def test_what_the_mesh_computes_otherwise_is_said(recwarn):
    model, mesh = make("deepseek_v2")
    with hf.attach(model, mesh, keep_weights=True):
        assert not [one for one in recwarn if "norm_topk_prob" in str(one.message)]
    model.config.norm_topk_prob = True
    with pytest.warns(UserWarning, match="norm_topk_prob is true.*will differ"):
        hf.attach(model, mesh)


def test_freed_weights_are_really_gone():
    model, mesh = make()
    (block, *_) = [m for m in model.modules() if families.family_of_block(m)]
    references = [weakref.ref(p) for p in block.parameters()]
    del block, _
    attachment = hf.attach(model, mesh)
    assert references and all(reference() is None for reference in references)
    with pytest.raises(expertmesh.FailedPrecondition, match="keep_weights=True"):
        attachment.detach()
    # Still attached.
    generate(model)


def test_freed_weights_are_read_again(tmp_path):
    model, mesh = make("granitemoeshared")
    inputs = tiny_models.inputs("granitemoeshared", length=10)
    before = logits(model, **inputs)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, dtype=torch.float32)
    hf.attach(loaded, mesh).detach()
    hf.attach(model, mesh).detach(tmp_path)
    assert_same(logits(model, **inputs), before)
    assert_same(logits(loaded, **inputs), before)
    assert not mesh.calls


def test_mapped_files_go(tmp_path):
    """A process keeps all pages of a mapped file as long as it has one tensor of it."""
    model, mesh = make("switch_transformers")
    inputs = tiny_models.inputs("switch_transformers", length=10)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)

    def mapped():
        return str(tmp_path) in pathlib.Path("/proc/self/maps").read_text()

    before = logits(loaded, **inputs)
    values = {name: value.clone() for name, value in loaded.state_dict().items()}
    assert mapped(), "or this test shows nothing"
    hf.attach(loaded, mesh)
    assert not mapped()
    for name, value in loaded.state_dict().items():
        assert_same_bits(value, values[name], name)
    # On some CPUs torch sums in an order that depends on the alignment of a weight, which has changed.
    assert_close(logits(loaded, **inputs), before, rtol=1e-5, atol=1e-5)
    embedding, head = loaded.get_input_embeddings().weight, loaded.lm_head.weight
    assert embedding.data_ptr() == head.data_ptr()


def test_leaving_without_kept_weights_closes():
    model, mesh = make()
    with hf.attach(model, mesh) as attachment:
        generate(model)
    with pytest.raises(expertmesh.FailedPrecondition, match="attach"):
        generate(model)
    with pytest.raises(expertmesh.FailedPrecondition, match="closed"):
        attachment.detach()
    attachment.close()
    assert not mesh.closed, "a client of the caller's own stays open"
    hf.attach(model, mesh)
    generate(model)


def test_some_layers():
    model, mesh = make()
    inputs = tiny_models.inputs("qwen3_moe", length=10)
    before = logits(model, **inputs)
    with hf.attach(model, mesh, layers=[2, 0], keep_weights=True) as attachment:
        assert attachment.layers == [0, 2]
        assert_same(logits(model, **inputs), before)
        assert [call["layer"] for call in mesh.calls] == [0, 2]
        with pytest.raises(expertmesh.FailedPrecondition, match="attached already"):
            hf.attach(model, mesh, layers=[1])
        with pytest.raises(expertmesh.FailedPrecondition, match="layer 0 is attached already"):
            hf.attach(model, mesh)
    for wrong in ([3], [], [0, -1]):
        with pytest.raises(expertmesh.InvalidArgument, match="MoE layers are 0-2"):
            hf.attach(model, mesh, layers=wrong)


def moe_layers(*numbers, **values):
    return [router_pb2.MoeLayer(layer=number, **values) for number in numbers]


@pytest.mark.parametrize(
    "described, message",
    [
        (dict(family="mixtral"), "serves family mixtral, the model is qwen3_moe"),
        (dict(family="martian"), "serves family martian, the model is qwen3_moe"),
        (dict(d_model=64), "d_model 64, the model has 256"),
        (dict(layers=moe_layers(0, 1)), "MoE layers 0-1, the model has 0-2"),
        (dict(layers=moe_layers(0, 1, 2, 4)), "MoE layers 0-2, 4, the model has 0-2"),
        (dict(layers=moe_layers(0, 1, 2, num_experts=8)), "num_experts 8, the model has 16"),
        (
            dict(layers=moe_layers(0, 1, 2, experts_per_token=2)),
            "layer 0: the mesh has experts_per_token 2, the model has 4",
        ),
    ],
)
def test_another_model_is_refused(described, message):
    model, _ = make()
    mesh = TorchMesh(model, **{"family": "qwen3_moe", **described})
    with pytest.raises(expertmesh.InvalidArgument, match=message):
        hf.attach(model, mesh)
    assert weights_of_experts(model) and not hasattr(model, "expertmesh")


@pytest.mark.parametrize("family", tiny_models.BUILDERS)
def test_the_sizes_of_the_same_model_are_accepted(family):
    """In every family's own words for them."""
    model, _ = make(family)
    config = getattr(model.config, "ffn_config", model.config)
    names = ("num_local_experts", "n_routed_experts", "num_experts", "moe_num_experts")
    experts = next(getattr(config, name) for name in names if hasattr(config, name))
    layers = tiny_models.MOE_LAYERS[family]
    right = TorchMesh(model, family, layers=moe_layers(*layers, num_experts=experts))
    wrong = TorchMesh(model, family, layers=moe_layers(*layers, num_experts=experts + 1))
    with pytest.raises(expertmesh.InvalidArgument, match="num_experts"):
        hf.attach(model, wrong)
    hf.attach(model, right)


def test_models_without_experts_are_refused():
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=16,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
    )
    with pytest.raises(expertmesh.InvalidArgument, match="LlamaForCausalLM has no MoE block"):
        hf.attach(transformers.LlamaForCausalLM(config), None)


def test_addresses(router):
    model, _ = make()
    with pytest.raises(expertmesh.InvalidArgument, match="d_model 8, the model has 256"):
        hf.attach(model, router.address)
    with pytest.raises(expertmesh.Unavailable):
        hf.attach(model, "127.0.0.1:1", timeout=300)
    assert weights_of_experts(model)


def test_errors_reach_the_caller_of_generate():
    model, mesh = make()
    hf.attach(model, mesh)
    mesh.fail_with = expertmesh.Unavailable("no ready node holds layer 0 experts 3, 5")
    with pytest.raises(expertmesh.Unavailable, match="layer 0 experts 3, 5"):
        generate(model)


def test_router_logits_are_refused():
    model, mesh = make()
    attachment = hf.attach(model, mesh, keep_weights=True)
    ids = tiny_models.tokens(1, 5)
    with pytest.raises(expertmesh.FailedPrecondition, match="return_routing=True"):
        model(ids, output_router_logits=True)
    model.config.output_router_logits = True
    with pytest.raises(expertmesh.FailedPrecondition, match="model.config"):
        model(ids)
    model(ids, output_router_logits=False)
    attachment.detach()
    assert model(ids).router_logits


def test_router_logits_that_are_a_default():
    """Switch asks for them unless told otherwise."""
    model, mesh = make("switch_transformers")
    inputs = tiny_models.inputs("switch_transformers", length=10)
    hf.attach(model, mesh)
    logits(model, **inputs)
    with pytest.raises(expertmesh.FailedPrecondition, match="output_router_logits"):
        model(**inputs, output_router_logits=True)


def test_training_is_refused():
    model, mesh = make()
    hf.attach(model, mesh)
    ids = tiny_models.tokens(1, 5)
    loss = model(ids, labels=ids).loss
    with pytest.raises(expertmesh.FailedPrecondition, match="no gradients"):
        loss.backward()
    model.train()
    with pytest.raises(expertmesh.FailedPrecondition, match=r"model.eval\(\)"):
        model(ids)


def test_half_a_model_is_not_saved(tmp_path):
    model, mesh = make()
    with hf.attach(model, mesh, keep_weights=True):
        with pytest.raises(expertmesh.FailedPrecondition, match="detach first"):
            model.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["mixtral", "deepseek_v3", "nllb_moe"])
def test_dtypes(family, dtype):
    model = make(family)[0].to(dtype)
    mesh = TorchMesh(model, family)
    inputs = tiny_models.inputs(family, length=20)
    before = logits(model, **inputs)
    hf.attach(model, mesh)
    after = logits(model, **inputs)
    assert after.dtype == dtype
    assert_same(after, before)
    assert {call["dtype"] for call in mesh.calls} == {dtype}


def test_sequences_are_told_where_routing_needs_them():
    model, mesh = make("switch_transformers")
    hf.attach(model, mesh)
    logits(model, **tiny_models.inputs("switch_transformers", batch=3, length=12))
    assert [call["group_sizes"] for call in mesh.calls] == [[12] * 3] * 2 + [[6] * 3] * 2
    mesh.calls.clear()
    logits(model, **tiny_models.inputs("switch_transformers", batch=1, length=12))
    assert all(call["group_sizes"] is None for call in mesh.calls)


def test_padding_of_nllb():
    """Padding gets nothing from the experts, and is not sent."""
    model, mesh = make("nllb_moe")
    inputs = tiny_models.inputs("nllb_moe", batch=2, length=12)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["attention_mask"][0, 9:] = 0
    before = logits(model, **inputs)
    hf.attach(model, mesh)
    after = logits(model, **inputs)
    encoder = [call["shape"][0] for call in mesh.calls if call["layer"] < 4]
    assert encoder == [21, 21]
    if not V5:
        # (Version 5 takes real tokens for padding, since its masks are true where those are.)
        assert_close(after, before, rtol=1e-5, atol=1e-5)


def test_forms_of_attention_masks():
    wanted = torch.tensor([[True, True, False], [True, True, True]])
    seen = torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1]])
    additive = torch.where(seen.bool(), 0.0, torch.finfo(torch.float32).min)
    for mask in (
        seen,
        seen.bool()[:, None, None, :],
        additive[:, None, None, :].expand(2, 1, 3, 4),
    ):
        assert_same(real_tokens(mask, 2, 3), wanted.reshape(-1))


def test_layers_are_found_by_path():
    assert families.split_path("model.layers.3.mlp.gate.weight", 0) == (3, "mlp.gate.weight")
    assert families.split_path("encoder.block.1.layer.1.mlp", 4) == (1, "layer.1.mlp")
    assert families.split_path("decoder.block.1.layer.2.mlp", 4) == (5, "layer.2.mlp")
    assert families.split_path("transformer.blocks.7.ffn.router", 0) == (7, "ffn.router")
    assert families.split_path("model.embed_tokens.weight", 0) is None
    assert families.family_named("nllb-moe") is families.family_named("nllb_moe") is not None


def test_blocks_describe_themselves():
    model, mesh = make()
    hf.attach(model, mesh)
    (block, *_) = [m for m in model.modules() if isinstance(m, MeshBlock)]
    assert "qwen3_moe, layer=0, attached" in repr(block)
