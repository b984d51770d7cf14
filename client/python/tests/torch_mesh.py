"""What the suites of expertmesh.hf share: a stand-in for the mesh, and models to use it with."""

import copy
import pathlib
import sys
import threading
import types

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

sys.path.insert(0, str(pathlib.Path(__file__).parents[3] / "tests" / "integration"))
import tiny_models  # noqa: E402

from expertmesh import ForwardOptions  # noqa: E402
from expertmesh.hf import families  # noqa: E402
from expertmesh.v1 import router_pb2  # noqa: E402

# Tiny tensors: more threads only wait for each other.
torch.set_num_threads(1)
V5 = families.TRANSFORMERS_MAJOR >= 5


# The options that blocks use.
_USED = ("timeout", "traceparent", "tracestate", "group_sizes")


class TorchMesh:
    """The methods of a Client that `attach` uses, computed by a copy of the model's own blocks.

    calls: the options of each forward that blocks use, and `layer`, `shape`, `dtype`.
    """

    def __init__(self, model, family, **described):
        model = copy.deepcopy(model)
        self._sites = {site.layer: site for site in families.find_sites(model, model.config)}
        self._described = dict(
            family=family,
            d_model=model.config.hidden_size,
            layers=[router_pb2.MoeLayer(layer=layer) for layer in self._sites],
        )
        self._described.update(described)
        self.calls = []
        self.closed = False
        self.fail_with = None
        self._lock = threading.Lock()

    def describe(self):
        return router_pb2.DescribeModelResponse(**self._described)

    def close(self):
        self.closed = True

    def forward(self, layer, array, options):
        used = {name: getattr(options, name) for name in _USED}
        with self._lock:
            self.calls.append(dict(used, layer=layer, shape=array.shape, dtype=array.dtype))
        if self.fail_with is not None:
            raise self.fail_with
        assert array.dim() == 2 and not array.requires_grad
        assert vars(options) == vars(ForwardOptions(**used)), "no other option is used"
        sizes = options.group_sizes or [array.shape[0]]
        assert sizes == [array.shape[0] // len(sizes)] * len(sizes)
        site = self._sites[layer]
        x = array.reshape(len(sizes), -1, array.shape[1])
        with torch.no_grad():
            y = site.block(x, None) if site.family.padding else site.block(x)
            y = (y[0] if isinstance(y, tuple) else y).reshape(x.shape)
            if site.family.sibling:
                y = y + getattr(site.parent, site.family.sibling)(x)
        return types.SimpleNamespace(output=y.reshape(array.shape))


_made = {}


def make(family="qwen3_moe"):
    """A model of the test's own, and a stand-in mesh that serves it."""
    if family not in _made:
        _made[family] = tiny_models.make(family)
    model = copy.deepcopy(_made[family])
    return model, TorchMesh(model, family)


def logits(model, **inputs):
    with torch.no_grad():
        return model(**inputs).logits


def generate(model, **options):
    return model.generate(tiny_models.tokens(1, 12), max_new_tokens=8, **options)
