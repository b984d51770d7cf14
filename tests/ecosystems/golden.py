"""The golden vectors, and how near an answer is to them. Only numpy: each check has its own environment."""

import pathlib

import numpy as np

from columns import expect

# The families' sums have another order than what recorded the vectors.
TOLERANCE = 1e-5


class Golden:
    """A folder as tests/golden/forward, with `answer.f32`: what grpcio got from the same mesh."""

    def __init__(self, folder):
        folder = pathlib.Path(folder)
        self.hidden_states = (folder / "hidden_states.f32").read_bytes()
        self.output = np.frombuffer((folder / "output.f32").read_bytes(), "<f4")
        answer = folder / "answer.f32"
        self.answer = answer.read_bytes() if answer.exists() else None

    def check(self, data):
        """Raises unless an answer has the golden values, and the bits that other clients get."""
        actual = np.frombuffer(data, "<f4")
        expect(actual.shape == self.output.shape, f"{actual.size} values, not {self.output.size}")
        error = np.linalg.norm(actual - self.output) / np.linalg.norm(self.output)
        expect(error <= TOLERANCE, f"the answer is {error:.1e} from the golden one")
        expect(self.answer in (None, data), "grpcio's answer has other bits")


def big_rows(d_model, size):
    """Hidden states of at least `size` bytes, as bytes."""
    rows = -(-size // (4 * d_model))
    few = np.random.default_rng(3).standard_normal((64, d_model), dtype=np.float32)
    return np.tile(few, (-(-rows // 64), 1))[:rows].tobytes(), rows
