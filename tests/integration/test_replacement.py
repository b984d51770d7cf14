"""A third of all experts changes its node under load.

EXPERTMESH_REPLACEMENT_FIGURES=1 holds the times, too, to what they are to be, on a model whose experts take a while to
load; that needs a machine that does nothing else.
"""

import os

import pytest

from mesh import cli, shards, wait_until
from replacement import Mover, TimedLoad

FIGURES = "EXPERTMESH_REPLACEMENT_FIGURES"


def serve_and_move(mesh, d_model, layers, answers, rounds):
    """Moves a third of the experts `rounds` times. Returns the load that was there."""
    with Mover(mesh) as mover, TimedLoad(mesh, d_model, layers) as load:

        def await_answers(count):
            target = len(load.answers) + count
            wait_until(lambda: len(load.answers) >= target or load.errors, f"{count} answers")

        for _ in range(rounds):
            await_answers(answers)
            load.moving = True
            mover.move()
            load.moving = False
        await_answers(answers)
    return load


def test_a_third_of_all_experts_moves_and_no_request_fails(mesh, checkpoint):
    mesh.start(checkpoint.path, shards(4))
    load = serve_and_move(mesh, checkpoint.d_model, checkpoint.moe_layers, answers=100, rounds=3)
    assert load.errors == []
    assert mesh.client.topology().ready
    print(load.figures())


@pytest.mark.skipif(FIGURES not in os.environ, reason=f"{FIGURES} is not set")
def test_answers_are_hardly_later_while_experts_move(mesh, tmp_path):
    layers, d_model = 8, 512
    sizes = ("--layers", layers, "--d-model", d_model, "--intermediate", 512, "--experts", 24)
    cli("checkpoint", "make", "--output", tmp_path / "model", "--dtype", "f32", *sizes)
    mesh.start(tmp_path / "model", shards(4))
    load = serve_and_move(mesh, d_model, range(layers), answers=3000, rounds=4)
    figures = load.figures()
    print(figures)
    assert load.errors == []
    assert figures["move"]["p99"] <= 1.5 * figures["rest"]["p99"]
    assert figures["move"]["latest"] <= 0.1
