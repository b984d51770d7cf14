"""expertmesh.hf.skeleton: a checkpoint without its experts, against the whole model and a stand-in mesh."""

import json
import pathlib
import struct

import pytest
from arrays import assert_same
from torch_mesh import TorchMesh, generate, logits, make, tiny_models, torch

import expertmesh
from expertmesh import hf
from expertmesh.hf.block import MeshBlock
from expertmesh.hf.safetensors_file import SafetensorsFile
from expertmesh.hf.skeleton import expand_blocks


@pytest.fixture
def saved(tmp_path):
    """saved(family, ...): the folder of a model, the model, and a mesh that serves it."""

    def get(family="qwen3_moe", **options):
        model, mesh = make(family)
        model.save_pretrained(tmp_path / family, **options)
        return tmp_path / family, model, mesh

    return get


@pytest.mark.parametrize("family", tiny_models.BUILDERS)
def test_it_is_the_model_without_its_experts(saved, family):
    folder, model, mesh = saved(family, max_shard_size="300KB")
    inputs = tiny_models.inputs(family, batch=2, length=30)
    hf.attach(model, mesh)
    before, said = logits(model, **inputs), generate(model)
    made = hf.skeleton(folder)
    assert type(made) is type(model) and not made.training
    left, right = made.state_dict(), model.state_dict()
    assert list(left) == list(right)
    for name in right:
        assert_same(left[name], right[name], name)
    with pytest.raises(expertmesh.FailedPrecondition, match="call expertmesh.hf.attach"):
        logits(made, **inputs)
    hf.attach(made, mesh)
    assert_same(logits(made, **inputs), before)
    assert_same(generate(made), said)


def test_attached_at_once(saved):
    folder, model, mesh = saved()
    made = hf.skeleton(folder, address=mesh, timeout=4)
    assert made.expertmesh.layers == [0, 1, 2]
    assert_same(generate(made), generate(model))
    assert {call["timeout"] for call in mesh.calls} == {4}
    with pytest.raises(expertmesh.InvalidArgument, match="loaded without them"):
        made.expertmesh.close()
        hf.attach(made, mesh, keep_weights=True)
    hf.attach(made, mesh).detach()
    mesh.calls.clear()
    assert_same(generate(made), generate(model))
    assert not mesh.calls


def test_how_to_generate_is_read_too(saved):
    folder, _, _ = saved()
    change(folder / "generation_config.json", max_new_tokens=3)
    assert hf.skeleton(folder).generation_config.max_new_tokens == 3


def test_some_layers(saved):
    folder, model, mesh = saved()
    made = hf.skeleton(folder, layers=[1], address=mesh)
    blocks = [m.layer for m in made.modules() if isinstance(m, MeshBlock)]
    assert blocks == [1]
    assert_same(generate(made), generate(model))
    assert {call["layer"] for call in mesh.calls} == {1}
    with pytest.raises(expertmesh.InvalidArgument, match=r"layers is \[5\]"):
        hf.skeleton(folder, layers=[5])


def test_tied_weights(tmp_path):
    model, mesh = make("olmoe")
    model.config.tie_word_embeddings = True
    model.tie_weights()
    folder = tmp_path / "tied"
    model.save_pretrained(folder)
    made = hf.skeleton(folder, address=mesh)
    embedding, head = made.get_input_embeddings().weight, made.get_output_embeddings().weight
    assert embedding.data_ptr() == head.data_ptr()
    assert_same(generate(made), generate(model))


@pytest.mark.parametrize("given", ["bfloat16", "torch.bfloat16", torch.bfloat16])
def test_dtype(saved, given):
    folder, model, _ = saved()
    assert hf.skeleton(folder).dtype == torch.float32
    # (Not model.to: that would round buffers as well, the rotary frequencies for one.)
    model = type(model).from_pretrained(folder, dtype=torch.bfloat16)
    mesh = TorchMesh(model, "qwen3_moe")
    made = hf.skeleton(folder, dtype=given, address=mesh)
    assert {value.dtype for value in made.state_dict().values()} == {torch.bfloat16}
    inputs = tiny_models.inputs("qwen3_moe", length=10)
    assert_same(logits(made, **inputs), logits(model, **inputs))


def test_bfloat16_is_what_the_checkpoint_says(tmp_path):
    model = make()[0].to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    assert hf.skeleton(tmp_path).dtype == torch.bfloat16


@pytest.mark.parametrize("given", ["int8", torch.int32, "martian"])
def test_dtypes_that_are_none(saved, given):
    folder, _, _ = saved()
    with pytest.raises(expertmesh.InvalidArgument, match="dtype is"):
        hf.skeleton(folder, dtype=given)


def change(path, **values):
    config = json.loads(path.read_text())
    config.update(values)
    path.write_text(json.dumps(config))


def test_folders_that_are_no_checkpoint(saved, tmp_path):
    with pytest.raises(expertmesh.InvalidArgument, match="has no config.json"):
        hf.skeleton(tmp_path / "nothing")
    folder, _, _ = saved()
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    with pytest.raises(expertmesh.InvalidArgument, match="neither model.safetensors nor"):
        hf.skeleton(folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(expertmesh.InvalidArgument, match="no usable weight_map"):
        hf.skeleton(folder)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"model.norm.weight": "gone.safetensors"}})
    )
    with pytest.raises(expertmesh.InvalidArgument, match="gone.safetensors is missing"):
        hf.skeleton(folder)
    change(folder / "config.json", quantization_config={"quant_method": "awq"})
    with pytest.raises(expertmesh.InvalidArgument, match="quantised as awq"):
        hf.skeleton(folder)
    change(
        folder / "config.json",
        architectures=["MartianForCausalLM"],
        quantization_config={"quant_method": "mxfp4"},
    )
    with pytest.raises(expertmesh.InvalidArgument, match="MartianForCausalLM"):
        hf.skeleton(folder)
    change(folder / "config.json", model_type="llama")
    with pytest.raises(expertmesh.InvalidArgument, match="model_type llama"):
        hf.skeleton(folder)


def rewrite(path, change_header):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    change_header(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def test_missing_weight(saved):
    folder, _, _ = saved()
    rewrite(folder / "model.safetensors", lambda header: header.pop("model.norm.weight"))
    with pytest.raises(expertmesh.InvalidArgument, match="lacks 1 weights .* model.norm.weight"):
        hf.skeleton(folder)


def test_experts_are_never_read(saved):
    """So it does not matter that nothing can be read of them."""
    folder, model, mesh = saved()

    def damage(header):
        for name in [name for name in header if ".mlp." in name]:
            header[name] = None

    rewrite(folder / "model.safetensors", damage)
    assert_same(generate(hf.skeleton(folder, address=mesh)), generate(model))


@pytest.mark.parametrize(
    "entry, message",
    [
        (dict(dtype="F7"), "F7"),
        (dict(shape=[3, 3]), r"\[3, 3\]"),
        (dict(shape=[-256]), "-256"),
        (dict(data_offsets=[0, 1 << 60]), "bytes 0 to"),
        (dict(data_offsets="all"), "nothing usable"),
        (None, "nothing usable"),
    ],
)
def test_damaged_entries(saved, entry, message):
    folder, _, _ = saved()

    def damage(header):
        name = "model.norm.weight"
        header[name] = None if entry is None else {**header[name], **entry}

    rewrite(folder / "model.safetensors", damage)
    with pytest.raises(expertmesh.InvalidArgument, match=message):
        hf.skeleton(folder)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x01", struct.pack("<Q", 1 << 62) + b"{}", struct.pack("<Q", 2) + b"[]"]
    + [struct.pack("<Q", 3) + b"abc"],
)
def test_damaged_files(tmp_path, data):
    path = pathlib.Path(tmp_path) / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(expertmesh.InvalidArgument, match="model.safetensors has"):
        SafetensorsFile(path)


def test_blocks_of_fp8_are_expanded(saved):
    """Attention in FP8 with a scale for every 128 x 128 weights, as DeepSeek-V3 has it."""
    folder, model, _ = saved("deepseek_v3")
    from safetensors.torch import load_file, save_file

    name = "model.layers.1.self_attn.o_proj.weight"
    tensors = load_file(folder / "model.safetensors")
    shape = tensors[name].shape
    quantised = torch.randn(shape).to(torch.float8_e4m3fn)
    scale = torch.rand(-(-shape[0] // 128), -(-shape[1] // 128)) + 0.5
    tensors[name], tensors[name + "_scale_inv"] = quantised, scale
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    change(
        folder / "config.json",
        quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]},
        torch_dtype="bfloat16",
        dtype="bfloat16",
    )
    wanted = torch.empty(shape, dtype=torch.bfloat16)
    for i in range(shape[0]):
        for j in range(shape[1]):
            wanted[i, j] = quantised[i, j].float() * scale[i // 128, j // 128]
    made = hf.skeleton(folder).state_dict()
    assert_same(made[name], wanted)
    other = "model.layers.2.self_attn.o_proj.weight"
    assert_same(made[other], model.state_dict()[other].to(torch.bfloat16))


def test_scales_that_are_exponents():
    weight = torch.ones(3, 4).to(torch.float8_e4m3fn)
    scale = torch.tensor([[127, 128], [126, 255]], dtype=torch.uint8)
    got = expand_blocks("w", weight, scale, (2, 2)).float()
    assert got[:2].tolist() == [[1, 1, 2, 2]] * 2
    assert got[2, :2].tolist() == [0.5, 0.5] and got[2, 2:].isnan().all()
    with pytest.raises(
        expertmesh.InvalidArgument, match=r"w has shape .* expected scales \[2, 2\]"
    ):
        expand_blocks("w", weight, scale[:1], (2, 2))
