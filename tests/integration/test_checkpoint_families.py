"""Checkpoints of every family, in both directions: the transformers library loads what `checkpoint make` makes, and
what the library saves is recognised, found whole, and counted as the library counts it."""

import json
import subprocess

import pytest
import torch
import transformers

import tiny_models
from mesh import PATIENCE, program

# Not in every version of the library.
EXTRA = ["ernie4_5_moe", "lfm2_moe"]
# Families in which layers with experts alternate with others, and the library knows it.
ALTERNATING = (
    "qwen2_moe qwen3_moe llama4 jamba switch_transformers nllb_moe ernie4_5_moe".split()
)


def expertmesh(*arguments):
    done = subprocess.run(
        [program("cli"), "checkpoint", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def inspect(folder):
    return json.loads(expertmesh("inspect", folder, "--json"))


def load(folder):
    """(model, keys that did not fit)."""
    config = transformers.AutoConfig.from_pretrained(folder)
    kind = (
        transformers.AutoModelForSeq2SeqLM
        if config.is_encoder_decoder
        else transformers.AutoModelForCausalLM
    )
    return kind.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)


@pytest.mark.parametrize(
    "family,every",
    [(family, 1) for family in [*tiny_models.BUILDERS, *EXTRA]]
    + [(family, 2) for family in ALTERNATING],
)
def test_library_loads_what_is_made(tmp_path, family, every):
    folder = tmp_path / "model"
    sizes = "--d-model 64 --experts 4 --intermediate 32 --vocab 128 --layers 4 --dtype f32".split()
    if every > 1:
        sizes += ["--moe-every", str(every)]
    expertmesh("make", "--output", folder, "--family", family, *sizes)
    model_type = json.loads((folder / "config.json").read_text())["model_type"]
    if model_type not in transformers.models.auto.configuration_auto.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {model_type}")
    model, info = load(folder)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    # Biases for selection are parameters in some families, and buffers in others.
    counted = dict(model.named_parameters())
    counted |= {name: value for name, value in model.named_buffers() if "correction_bias" in name}
    said = inspect(folder)
    assert said["family"] == family
    assert said["parameters"]["total"] == sum(value.numel() for value in counted.values())
    if family in ALTERNATING:
        assert len(said["moe_layers"]) == 4 // every


@pytest.mark.parametrize("family", tiny_models.BUILDERS)
def test_what_the_library_saves_is_found(tmp_path, family):
    model = tiny_models.make(family)
    model.save_pretrained(tmp_path)
    said = inspect(tmp_path)
    assert said["family"] == family
    assert [layer["layer"] for layer in said["moe_layers"]] == tiny_models.MOE_LAYERS[family]
    assert said["weights"]["bytes_per_expert"] == 4 * said["parameters"]["per_expert"]
