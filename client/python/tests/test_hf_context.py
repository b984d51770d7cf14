"""Deadlines, traces, threads and asyncio of expertmesh.hf, against a stand-in mesh."""

import asyncio
import concurrent.futures
import contextvars
import threading

import pytest
from arrays import assert_same
from torch_mesh import generate, make, tiny_models

import expertmesh
from expertmesh import hf

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_timeouts():
    model, mesh = make()
    hf.attach(model, mesh, timeout=7.5)
    generate(model)
    assert {call["timeout"] for call in mesh.calls} == {7.5}
    mesh.calls.clear()
    with hf.deadline(3600):
        generate(model)
    assert {call["timeout"] for call in mesh.calls} == {7.5}


def test_the_deadline_is_one_for_all_calls():
    model, mesh = make()
    hf.attach(model, mesh, timeout=None)
    generate(model)
    assert {call["timeout"] for call in mesh.calls} == {None}
    mesh.calls.clear()
    with hf.deadline(3600), hf.deadline(7200):
        generate(model)
    left = [call["timeout"] for call in mesh.calls]
    assert all(0 < b < a <= 3600 for a, b in zip(left, left[1:]))
    mesh.calls.clear()
    generate(model)
    assert mesh.calls[-1]["timeout"] is None


def test_a_deadline_that_passed():
    model, mesh = make()
    hf.attach(model, mesh)
    with hf.deadline(0):
        with pytest.raises(expertmesh.DeadlineExceeded, match="before layer 0 was called"):
            generate(model)
        with pytest.raises(TimeoutError):
            generate(model)
    assert not mesh.calls
    generate(model)


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_deadlines_that_make_no_sense(seconds):
    with pytest.raises(expertmesh.InvalidArgument, match="deadline is"):
        with hf.deadline(seconds):
            pass


def test_traces():
    model, mesh = make()
    hf.attach(model, mesh)
    generate(model)
    assert {call["traceparent"] for call in mesh.calls} == {None}
    mesh.calls.clear()
    with hf.trace(PARENT):
        generate(model)
        with hf.trace(PARENT.replace("-01", "-00"), "a=1"):
            generate(model)
    told = {(call["traceparent"], call["tracestate"]) for call in mesh.calls}
    assert told == {(PARENT, None), (PARENT.replace("-01", "-00"), "a=1")}


def test_threads_have_their_own_text_and_deadline():
    model, mesh = make()
    prompts = [tiny_models.tokens(8, 12)[i : i + 1] for i in range(4)]
    wanted = [model.generate(prompt, max_new_tokens=8) for prompt in prompts]
    hf.attach(model, mesh, timeout=None)
    barrier = threading.Barrier(len(prompts))

    def run(prompt):
        barrier.wait()
        return model.generate(prompt, max_new_tokens=8)

    with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
        with hf.deadline(0):
            # A thread of its own has no deadline unless it is given one.
            answers = list(pool.map(run, prompts))
    for answer, want in zip(answers, wanted, strict=True):
        assert_same(answer, want)


def test_asyncio():
    model, mesh = make()
    wanted = generate(model)
    hf.attach(model, mesh, timeout=None)

    async def main():
        with hf.deadline(3600), hf.trace(PARENT):
            answers = await asyncio.gather(*(asyncio.to_thread(generate, model) for _ in range(3)))
            carried = contextvars.copy_context()
            loop = asyncio.get_running_loop()
            answers.append(await loop.run_in_executor(None, carried.run, generate, model))
        return answers

    for answer in asyncio.run(main()):
        assert_same(answer, wanted)
    assert {call["traceparent"] for call in mesh.calls} == {PARENT}
    assert all(call["timeout"] <= 3600 for call in mesh.calls)
