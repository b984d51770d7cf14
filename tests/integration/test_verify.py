"""`expertmesh verify` against a mesh that routes in every way a router can be told to."""

import json
import subprocess

import pytest

from checkpoint import make_checkpoint
from mesh import Mesh, program, shards

# What --routing says, for a model that takes 3 of 12 experts by softmax.
REPEATABLE = {
    "as in the checkpoint": {},
    "Switch": {"top_k": 1, "renormalise": "none", "capacity_factor": 1.0},
    "GShard": {"top_k": 2, "capacity_factor": 1.0, "renormalise_after_drop": True},
    "batch prioritised": {"capacity_factor": 0.5, "drop": "batch_prioritised"},
    "by score": {"capacity_tokens": 2, "drop": "score"},
    "next best": {
        "capacity_factor": 0.8,
        "drop": "next_best",
        "renormalise_after_drop": True,
    },
    "expert choice": {"choice": "expert_choice", "capacity_factor": 2.0, "renormalise": "none"},
    "hash": {"choice": "hash", "top_k": 1},
    "sparse mixer": {"choice": "sparse_mixer", "top_k": 2, "sparse_mixer_epsilon": 0.2},
    "groups": {
        "n_group": 4,
        "topk_group": 2,
        "group_score": "top_two_sum",
        "masked_choice": "-inf",
    },
    "sigmoid of the selected": {"score": "sigmoid", "scope": "selected", "renormalise": "none"},
    "square root of softplus": {"score": "sqrt_softplus", "renormalise": "lp", "renormalise_p": 2},
    "BASE": {
        "top_k": 1,
        "score": "sigmoid",
        "renormalise": "none",
        "pass_through": "complement",
        "temperature": 2.0,
    },
}
# All but learned noise, for which no family has weights.
RANDOM = {
    "noise = gumbel": {"noise": "gumbel"},
    "noise = jitter": {"noise": "jitter", "noise_scale": 0.01},
    "second_expert = sampled": {"second_expert": "sampled"},
    "second_expert = random": {"second_expert": "random", "renormalise_after_drop": True},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "model", "qwen3_moe")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory, model):
    """Three nodes; a router comes and goes with each test."""
    with Mesh(tmp_path_factory.mktemp("nodes")) as mesh:
        mesh.start_nodes(model.path, shards(3))
        yield mesh


@pytest.fixture
def verify(tmp_path, nodes, model):
    """verify(routing): output and exit status of the command against a router with these options."""
    with Mesh(tmp_path) as mesh:

        def run(routing):
            flags = ["--routing", json.dumps(routing)] if routing else []
            mesh.start_router(model.path, *flags, nodes=[node.address for node in nodes.nodes])
            mesh.wait_ready()
            return subprocess.run(
                [program("cli"), "verify", "--router", mesh.router.address]
                + ["--model", str(model.path), "--tokens", "40"],
                capture_output=True,
                text=True,
                check=False,
            )

        yield run


@pytest.mark.parametrize("routing", REPEATABLE)
def test_routing_is_repeated_and_checked(verify, routing):
    done = verify(REPEATABLE[routing])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 layers agree with the reference" in done.stdout
    assert done.stdout.count(" checked ") == 2
    assert "not checked" not in done.stdout


@pytest.mark.parametrize("why", RANDOM)
def test_random_routing_is_said_not_to_be_checked(verify, why):
    done = verify(RANDOM[why])
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(f"not checked: {why}") == 2
    assert "only what the experts make of the tokens was checked" in done.stdout
