"""Comparisons of arrays whose failures say which row and column differ first, by how much, and how many rows
differ, in a few lines. They print neither arrays nor frames of their own.

Arrays are numpy's, torch's, bytes, or lists of numbers. The last dimension is the columns; all others together
are the rows.
"""

import sys

import ml_dtypes
import numpy as np


def relative_error(actual, expected):
    """[tokens] norm of the difference over norm of the expected row; 0 where both are all 0."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    difference = np.linalg.norm(actual - expected, axis=1)
    norm = np.linalg.norm(expected, axis=1)
    return np.where(difference == 0, 0.0, difference / np.where(norm == 0, 1e-300, norm))


def assert_same(actual, expected, label=""):
    """Equal by ==: 0 equals -0, and NaN equals nothing."""
    __tracebackhide__ = True
    actual, expected = _rows_of_both(actual, expected, label)
    _check(actual, expected, actual != expected, label, lambda a, e: f"{a} instead of {e}")


def assert_same_bits(actual, expected, label=""):
    """One type, and equal bit for bit."""
    __tracebackhide__ = True
    actual, expected = _rows_of_both(actual, expected, label)
    if actual.dtype != expected.dtype:
        raise AssertionError(f"{_prefix(label)}type {actual.dtype} instead of {expected.dtype}")
    bits = f"u{actual.dtype.itemsize}"
    wrong = actual.view(bits) != expected.view(bits)
    _check(actual, expected, wrong, label, lambda a, e: f"{_bits(a)} instead of {_bits(e)}")


def assert_different(actual, expected, label=""):
    """At least one value differs; of the same shape."""
    __tracebackhide__ = True
    actual, expected = _rows_of_both(actual, expected, label)
    if not np.any(actual != expected):
        rows, columns = actual.shape
        raise AssertionError(f"{_prefix(label)}all {rows} rows of {columns} values are the same")


def assert_close(actual, expected, rtol=0.0, atol=0.0, label=""):
    """Each value within atol + rtol * |expected|, which may be arrays. NaN is close to nothing."""
    __tracebackhide__ = True
    actual, expected = _rows_of_both(actual, expected, label)
    wide_actual, wide = actual.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore"):
        allowed = np.broadcast_to(atol + rtol * np.abs(wide), wide.shape)
        near = (wide_actual == wide) | (np.abs(wide_actual - wide) <= allowed)
    where = _first(~near)
    limit = f" within {allowed[where]:.6g}" if where else ""
    _check(actual, expected, ~near, label, lambda a, e: f"{a} instead of {e}{limit}")


def assert_rows_close(actual, expected, bound, label=""):
    """Each row within `bound` (a number, or one for each row) of the expected one, by relative_error."""
    __tracebackhide__ = True
    actual, expected = _rows_of_both(actual, expected, label)
    with np.errstate(invalid="ignore"):
        error = relative_error(actual, expected)
        by = _difference(actual, expected)
    bound = np.broadcast_to(bound, error.shape)
    (far,) = np.nonzero(~(error <= bound))
    if not far.size:
        return
    row, worst = far[0], far[np.argmax(_magnitude(error[far]))]
    column = np.argmax(_magnitude(by[row]))
    raise AssertionError(
        f"{_prefix(label)}row {row} is the first too far off: relative error {error[row]:.6g}, at most"
        f" {bound[row]:.6g}; most of it in column {column}, {actual[row, column]} instead of"
        f" {expected[row, column]}, a difference of {by[row, column]:.6g}\n"
        f"{far.size} of {len(error)} rows are too far off, by up to {error[worst]:.6g} in row {worst}"
    )


def _array(value):
    if isinstance(value, (bytes, bytearray, memoryview)):
        return np.frombuffer(value, np.uint8)
    # Tests without torch do not import it for this.
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach().cpu().contiguous()
        if value.dtype == torch.bfloat16:
            return value.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return value.numpy()
    return np.ascontiguousarray(value)


def _rows_of_both(actual, expected, label):
    """Both as [rows, columns]."""
    __tracebackhide__ = True
    actual, expected = _array(actual), _array(expected)
    if actual.shape != expected.shape:
        raise AssertionError(f"{_prefix(label)}shape {actual.shape} instead of {expected.shape}")
    columns = actual.shape[-1] if actual.ndim else 1
    rows = int(np.prod(actual.shape[:-1]))
    return actual.reshape(rows, columns), expected.reshape(rows, columns)


def _prefix(label):
    return f"{label}: " if label else ""


def _bits(value):
    return f"{value} (0x{int.from_bytes(value.tobytes(), sys.byteorder):0{2 * value.itemsize}x})"


def _difference(actual, expected):
    with np.errstate(invalid="ignore"):
        return actual.astype(np.float64) - expected.astype(np.float64)


def _magnitude(values):
    """What is not a number is further off than any number."""
    return np.where(np.isnan(values), np.inf, np.abs(values))


def _first(wrong):
    """Row and column of the first True; None without one."""
    rows, columns = np.nonzero(wrong)
    return (rows[0], columns[0]) if rows.size else None


def _check(actual, expected, wrong, label, show):
    __tracebackhide__ = True
    first = _first(wrong)
    if first is None:
        return
    by = _difference(actual, expected)
    worst = np.unravel_index(np.argmax(np.where(wrong, _magnitude(by), -1.0)), by.shape)
    raise AssertionError(
        f"{_prefix(label)}row {first[0]}, column {first[1]} is the first to differ:"
        f" {show(actual[first], expected[first])}, a difference of {by[first]:.6g}\n"
        f"{wrong.any(axis=1).sum()} of {len(wrong)} rows and {wrong.sum()} of {wrong.size} values differ,"
        f" by up to {_magnitude(by[worst]):.6g} in row {worst[0]}, column {worst[1]}"
    )
