"""Rows that travel as int8 blocks."""

import numpy as np
import pytest
from arrays import assert_close, assert_same

import expertmesh
from expertmesh import ForwardOptions, codec, int8_blocks
from expertmesh.v1 import router_pb2, tensor_pb2


@pytest.mark.parametrize("d_model", [1, 127, 128, 129, 300])
def test_each_value_comes_back_within_half_a_scale(d_model):
    rows = np.random.default_rng(d_model).standard_normal((5, d_model)).astype(np.float32)
    rows[1] *= 1e6
    integers, scales = int8_blocks.quantise(rows)
    assert integers.shape == rows.shape and integers.dtype == np.int8
    assert scales.shape == (5, -(-d_model // 128)) and scales.dtype == np.float32
    back = int8_blocks.dequantise(integers, scales)
    for begin in range(0, d_model, 128):
        block = rows[:, begin : begin + 128]
        peak = np.abs(block).max(axis=1, keepdims=True)
        # Half a scale, and the rounding of float32.
        assert_close(back[:, begin : begin + 128], block, atol=peak / 254 * 1.0001)
        # The largest value has the largest integer, so no block shares another one's scale.
        assert_same(np.abs(integers[:, begin : begin + 128]).max(axis=1), [127] * 5)


def test_zeros_stay_and_what_is_not_finite_spoils_its_block_only():
    rows = np.ones((3, 256), np.float32)
    rows[0] = 0
    rows[1, 5] = np.nan
    rows[2, 200] = -np.inf
    integers, scales = int8_blocks.quantise(rows)
    back = int8_blocks.dequantise(integers, scales)
    assert_same(back[0], rows[0])
    assert np.isnan(back[1, :128]).all() and (back[1, 128:] == 1).all()
    assert (back[2, :128] == 1).all() and np.isnan(back[2, 128:]).all()


def test_no_rows():
    integers, scales = int8_blocks.quantise(np.zeros((0, 8), np.float32))
    assert integers.shape == (0, 8) and scales.shape == (0, 1)


def test_the_output_has_the_type_of_the_array_unless_told_otherwise():
    x = np.ones((2, 3, 8), np.float16)
    request, _ = codec.encode_request(0, x, ForwardOptions(int8_hidden_states=True))
    assert request.hidden_states.dtype == tensor_pb2.DTYPE_INT8_BLOCK128
    assert list(request.hidden_states.shape) == [6, 8]
    assert request.output_dtype == tensor_pb2.DTYPE_F16
    request, _ = codec.encode_request(
        0, x, ForwardOptions(int8_hidden_states=True, output_dtype="float32")
    )
    assert request.output_dtype == tensor_pb2.DTYPE_F32
    request, _ = codec.encode_request(0, x, ForwardOptions(int8_output=True))
    assert request.hidden_states.dtype == tensor_pb2.DTYPE_F16
    assert request.output_dtype == tensor_pb2.DTYPE_INT8_BLOCK128
    with pytest.raises(expertmesh.InvalidArgument, match="leave one out"):
        codec.encode_request(0, x, ForwardOptions(int8_output=True, output_dtype="float32"))


def test_an_answer_whose_scales_do_not_fit():
    _, shape = codec.encode_request(
        0, np.ones((2, 130), np.float32), ForwardOptions(int8_output=True)
    )
    output = tensor_pb2.Tensor(
        dtype=tensor_pb2.DTYPE_INT8_BLOCK128,
        shape=[2, 130],
        data=bytes(260),
        scales=np.ones(2, "<f4").tobytes(),
    )
    with pytest.raises(expertmesh.Internal, match="8 bytes of scales; expected 16"):
        codec.decode_response(router_pb2.ForwardResponse(output=output), shape)
