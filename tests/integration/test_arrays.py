"""What arrays.py says of arrays that differ."""

import os
import pathlib
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

import arrays

EXPECTED = np.full((6, 4), 0.5, np.float32)
ACTUAL = EXPECTED.copy()
ACTUAL[2, 1] = 0.75
ACTUAL[2, 2] = 0.375
ACTUAL[5, 0] = -1.5


def said(check, *values, **options):
    with pytest.raises(AssertionError) as caught:
        check(*values, **options)
    text = str(caught.value)
    assert len(text.splitlines()) < 10 and len(text) < 400
    return text


@pytest.mark.parametrize(
    "check", [arrays.assert_same, arrays.assert_same_bits, arrays.assert_close]
)
def test_the_first_difference_and_the_largest_are_named(check):
    check(EXPECTED, EXPECTED.copy())
    text = said(check, ACTUAL, EXPECTED, label="layer 3")
    assert text.startswith("layer 3: row 2, column 1 is the first to differ: 0.75")
    assert "instead of 0.5" in text and "a difference of 0.25\n" in text
    assert "2 of 6 rows and 3 of 24 values differ, by up to 2 in row 5, column 0" in text


def test_tolerances():
    arrays.assert_close(ACTUAL, EXPECTED, atol=2.0)
    arrays.assert_close(ACTUAL, EXPECTED, rtol=4.0)
    arrays.assert_close(ACTUAL, EXPECTED, atol=np.array([[1], [1], [1], [1], [1], [2.0]]))
    assert "0.75 instead of 0.5 within 0.2" in said(
        arrays.assert_close, ACTUAL, EXPECTED, atol=0.1, rtol=0.2
    )
    text = said(arrays.assert_close, ACTUAL, EXPECTED, atol=0.3)
    assert "row 5, column 0" in text and "1 of 6 rows and 1 of 24 values" in text


def test_relative_errors_of_rows():
    arrays.assert_rows_close(ACTUAL, EXPECTED, 2.0)
    arrays.assert_rows_close(ACTUAL, EXPECTED, np.array([0, 0, 0.3, 0, 0, 2.0]))
    text = said(arrays.assert_rows_close, ACTUAL, EXPECTED, 0.1, label="bf16")
    assert text.startswith(
        "bf16: row 2 is the first too far off: relative error 0.279508, at most 0.1;"
    )
    assert "column 1, 0.75 instead of 0.5, a difference of 0.25\n" in text
    assert "2 of 6 rows are too far off, by up to 2 in row 5" in text
    broken = EXPECTED.copy()
    broken[3, 2] = np.nan
    text = said(arrays.assert_rows_close, broken, EXPECTED, 1e9)
    assert "row 3" in text and "column 2, nan instead of 0.5" in text


def test_zeros_and_values_that_are_not_finite():
    zeros = np.array([[0.0, -0.0]], np.float32)
    arrays.assert_same(zeros, np.abs(zeros))
    text = said(arrays.assert_same_bits, zeros, np.abs(zeros))
    assert "column 1 is the first to differ: -0.0 (0x80000000) instead of 0.0 (0x00000000)" in text
    broken = np.array([[np.nan, np.inf]])
    arrays.assert_same_bits(broken, broken.copy())
    assert "by up to inf in row 0, column 0" in said(arrays.assert_same, broken, broken)
    assert "1 of 2 values" in said(arrays.assert_close, broken, broken, atol=1e300)


def test_kinds_of_arrays():
    torch = pytest.importorskip("torch")
    for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.bool):
        ones = torch.ones(2, 3, dtype=dtype)
        arrays.assert_same_bits(ones, ones.clone())
        other = ones.clone()
        other[1, 2] = 0
        assert "row 1, column 2" in said(arrays.assert_same_bits, ones, other)
        assert "1 of 6 values" in said(arrays.assert_same, other, ones)
    bf16 = np.ones((2, 3), ml_dtypes.bfloat16)
    assert "row 0, column 0" in said(arrays.assert_same_bits, bf16, 2 * bf16)
    # Tokens, bytes, a number, nothing.
    assert "row 0, column 2" in said(arrays.assert_same, [1, 2, 3], [1, 2, 4])
    assert "column 1 is the first to differ: 98 (0x62)" in said(
        arrays.assert_same_bits, b"abc", b"aac"
    )
    arrays.assert_same(np.float32(1), 1)
    arrays.assert_same(np.zeros((0, 8)), np.zeros((0, 8)))
    arrays.assert_rows_close(np.zeros((0, 8)), np.zeros((0, 8)), 0)
    assert "2 of 4 rows" in said(
        arrays.assert_same, np.zeros((2, 2, 3)), np.arange(12).reshape(2, 2, 3) // 6
    )


def test_shapes_and_types_that_differ():
    text = said(arrays.assert_same, ACTUAL[1:], ACTUAL)
    assert text == "shape (5, 4) instead of (6, 4)"
    text = said(arrays.assert_same_bits, ACTUAL, ACTUAL.astype(np.float64), label="x")
    assert text == "x: type float32 instead of float64"


def test_arrays_that_should_differ():
    arrays.assert_different(ACTUAL, EXPECTED)
    text = said(arrays.assert_different, EXPECTED, EXPECTED, label="seeds")
    assert text == "seeds: all 6 rows of 4 values are the same"


FAILING = """
import numpy as np
import arrays

def test_bits():
    arrays.assert_same_bits(np.ones((1000, 100), np.float32), np.zeros((1000, 100), np.float32))

def test_rows():
    arrays.assert_rows_close(np.ones((1000, 100)), np.zeros((1000, 100)), 1e-5)
"""


def test_what_pytest_prints_of_it(tmp_path):
    (tmp_path / "test_failing.py").write_text(FAILING)
    # Where CI is set, pytest cuts nothing.
    environment = {**os.environ, "CI": "1", "PYTHONPATH": str(pathlib.Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", tmp_path],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    first, second = done.stdout.split("____ test_")[1:]
    for report, words in ((first, "row 0, column 0"), (second, "row 0 is the first")):
        report = report.split("=====")[0]
        assert words in report and "1000 of 1000 rows" in report
        assert len(report.splitlines()) < 10, report
