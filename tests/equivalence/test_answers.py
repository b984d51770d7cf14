"""What is found different in two answers, what is recorded, and what the report says of it."""

import pathlib
import sys

import numpy as np
import pytest

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "integration")]

# pylint: disable=wrong-import-position
import compare_builds
import recording
import replay
from answers import Answer, answer_of, difference, flip_bit
from expertmesh import int8_blocks
from expertmesh.v1 import router_pb2
from expertmesh.v1.tensor_pb2 import DTYPE_BF16, DTYPE_F16, DTYPE_F32, DTYPE_INT8_BLOCK128
from matrix import LAYOUTS, MODELS

ROWS = np.random.default_rng(3).standard_normal((4, 200), dtype=np.float32)
EPOCH = 5


def response(rows=ROWS, dtype=DTYPE_F32, **fields):
    made = router_pb2.ForwardResponse(request_id=9, epoch=EPOCH, **fields)
    made.output.dtype = dtype
    made.output.shape.extend(rows.shape)
    if dtype == DTYPE_INT8_BLOCK128:
        integers, scales = int8_blocks.quantise(rows)
        made.output.data, made.output.scales = integers.tobytes(), scales.tobytes()
    else:
        made.output.data = rows.astype(recording.ELEMENTS[dtype]).tobytes()
    made.timing.queue_us = 17
    made.routing.experts_per_token = 2
    made.routing.expert_ids.extend([1, 2] * 4)
    made.routing.expert_weights.extend([0.75, 0.25] * 4)
    made.dropped.add(token=3, expert=1)
    return made


def answered(made, epoch=EPOCH):
    return answer_of(made.SerializeToString(), epoch)


def said(change, **fields):
    """What the difference is after change(response)."""
    changed = response(**fields)
    change(changed)
    return difference(answered(changed), answered(response(**fields)))


def test_equal_but_for_timing_and_the_epochs_before():
    later = response()
    later.timing.queue_us = 99
    later.epoch += 3
    assert difference(answered(later, EPOCH + 3), answered(response())) is None


def test_another_epoch_is_a_difference_unless_it_is_left_out():
    later = response()
    later.epoch += 1
    assert "epoch" in difference(answered(later), answered(response()))
    assert difference(answered(later, None), answered(response(), None)) is None


@pytest.mark.parametrize(
    "dtype,size",
    [(DTYPE_F32, 4), (DTYPE_F16, 2), (DTYPE_BF16, 2), (DTYPE_INT8_BLOCK128, 1)],
)
def test_one_bit_is_found_by_row_and_column(dtype, size):
    def flip(made):
        data = bytearray(made.output.data)
        data[(2 * 200 + 7) * size] ^= 1
        made.output.data = bytes(data)

    text = said(flip, dtype=dtype)
    assert text.startswith("output: row 2, column 7 is the first to differ")
    assert "1 of 4 rows and 1 of 800 values differ" in text


def test_every_flip_is_found_in_its_place():
    rng = np.random.default_rng(1)
    for dtype in (DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_INT8_BLOCK128):
        expected = answered(response(dtype=dtype))
        for _ in range(50):
            flipped, row, column = flip_bit(expected, rng)
            found = difference(flipped, expected)
            assert found.startswith(f"output: row {row}, column {column} is the first to differ")


def test_zeros_of_both_signs_differ_and_a_nan_equals_itself():
    special = np.array([[0.0, np.nan, np.inf]], np.float32)
    assert difference(answered(response(special)), answered(response(special))) is None
    other = special.copy()
    other[0, 0] = -0.0
    text = difference(answered(response(other)), answered(response(special)))
    assert text.startswith("output: row 0, column 0")


def test_a_scale_is_found_by_row_and_block():
    def change(made):
        scales = np.frombuffer(made.output.scales, np.float32).reshape(4, 2).copy()
        scales[3, 1] *= 2
        made.output.scales = scales.tobytes()

    text = said(change, dtype=DTYPE_INT8_BLOCK128)
    assert text.startswith("scales of output: row 3, column 1 is the first to differ")


def set_unknown_field(made):
    # Field 77, a varint.
    made.MergeFromString(b"\xe8\x04\x01")


@pytest.mark.parametrize(
    "change,words",
    [
        (lambda made: made.routing.expert_ids.__setitem__(5, 3), "expert_ids: row 2, column 1"),
        (lambda made: made.routing.expert_weights.__setitem__(4, 0.5), "expert_weights: row 2, column 0"),
        (lambda made: made.routing.assignments_per_token.append(2), "assignments_per_token: number is 1"),
        (lambda made: setattr(made.dropped[0], "token", 2), "dropped: entry 0 is (2, 1) instead of (3, 1)"),
        (lambda made: made.dropped.add(token=3, expert=2), "dropped: number is 2 instead of 1"),
        (lambda made: setattr(made.status, "code", 3), "status is (3, '') instead of (0, '')"),
        (lambda made: setattr(made.status, "message", "no"), "status is (0, 'no') instead of (0, '')"),
        (lambda made: setattr(made, "request_id", 8), "request_id is 8 instead of 9"),
        (lambda made: made.output.shape.append(1), "output shape: number is 3 instead of 2"),
        (lambda made: setattr(made.output, "data", made.output.data[:-4]), "shape"),
        (lambda made: made.ClearField("routing"), "experts_per_token is 0 instead of 2"),
        (set_unknown_field, "bytes of the answer"),
    ],
)
def test_everything_else_is_compared(change, words):
    assert words in said(change)


def test_statuses_of_calls():
    refused = Answer(3, "layer is 7")
    assert difference(refused, Answer(3, "layer is 7")) is None
    assert "layer is 8" in difference(Answer(3, "layer is 8"), refused)
    assert "status of the call is (14," in difference(Answer(14, "layer is 7"), refused)
    assert difference(refused, answered(response())) is not None
    assert difference(answered(response()), refused) is not None


def test_the_same_recording_every_time(tmp_path):
    requests = recording.record([1, 3], 200, seed=2)
    assert requests == recording.record([1, 3], 200, seed=2)
    assert requests != recording.record([1, 3], 200, seed=3)
    recording.write(tmp_path / "requests", requests)
    assert recording.read(tmp_path / "requests") == requests
    parsed = [router_pb2.ForwardRequest.FromString(request) for request in requests]
    assert len({request.request_id for request in parsed}) == len(parsed)
    assert {1, 3} < {request.layer for request in parsed}
    types = {request.hidden_states.dtype for request in parsed}
    assert types == {DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_INT8_BLOCK128}
    assert any(request.group_sizes for request in parsed)
    assert any(request.token_ids for request in parsed)


REQUESTS = recording.record([0], 200, seed=1)[:3]


def cells(new, self_check=False):
    """Cells of three requests that were all answered with response(), and by the new build with `new`."""
    old = answered(response())
    modes = [(kind, mode) for kind in replay.KINDS for mode in (replay.UNARY, replay.STREAMED)]
    model, layout = MODELS[0], LAYOUTS["two nodes"]
    made = {key: [old] * 3 for key in modes}
    changed = made | {(replay.STRICT, replay.STREAMED): [old, old, new]}
    return compare_builds.compare(model, layout, made, changed, None, REQUESTS, self_check)


def test_the_report_names_the_first_difference():
    other = ROWS.copy()
    other[1, 8] *= 2
    found = cells(answered(response(other)))
    lines, well = compare_builds.summary(found, seconds=1)
    assert not well
    assert lines[0].startswith(
        "different: mixtral f32, two nodes, strict, streamed, request 1002 (layer 0, 2 tokens):"
        " output: row 1, column 8 is the first to differ"
    )
    assert "12 answers of each build, 12 of them OK; 11 equal, 1 different" in lines[1]
    _, plain, strict = compare_builds.table(found)
    assert plain.split()[:4] == ["mixtral", "two", "nodes", "plain"]
    assert plain.split()[-3:] == ["6", "6", "0"]
    assert strict.split()[4:] == ["3/3", "2/3", *"----", "6", "5", "1"]


def test_all_equal_is_well_and_flips_are_counted():
    lines, well = compare_builds.summary(cells(answered(response()), self_check=True), seconds=1)
    assert well
    assert "flipped bits: 2, found in their place: 2" in lines[-1]


def test_a_comparison_that_misses_a_flip_is_told(monkeypatch):
    monkeypatch.setattr(compare_builds, "difference", lambda found, expected: None)
    lines, well = compare_builds.summary(cells(answered(response()), self_check=True), seconds=1)
    assert not well
    assert "a flipped bit in row" in lines[0]


def test_nothing_compared_is_not_well():
    assert not compare_builds.summary([], seconds=1)[1]
    failed = Answer(14, "no node is there")
    old = {(kind, replay.UNARY): [failed] for kind in replay.KINDS}
    found = compare_builds.compare(
        MODELS[0], LAYOUTS["two nodes"], old, old, None, REQUESTS[:1], self_check=False
    )
    lines, well = compare_builds.summary(found, seconds=1)
    assert not well and "nothing is shown" in lines[0]


def test_models_have_names_of_their_own():
    assert len({model.name for model in MODELS}) == len(MODELS)
    assert len({model.family for model in MODELS}) == 20 and len(LAYOUTS) == 7
    assert all(set(model.layouts) <= set(LAYOUTS) for model in MODELS)
