#!/usr/bin/env bash
# ONNX Runtime 1.32.0 (PyPI, CPU): its operator com.microsoft.MoE answers a token whose router logits hold one NaN, or one
# +Inf, with a row of zeros: finite, and in a model with residuals as if the layer had let the token pass. The same router
# made of ONNX operators in the same session (Softmax, then TopK) gives NaN weights, so that the fault is seen. Nor does
# the operator hide a NaN of the token itself. Looking at outputs for NaN does not find a broken router behind this operator.
#
# Seen, of 8 tokens with one bad logit, each in another place: NaN: 8 rows of zeros; +Inf: 8; Softmax and TopK: 8 rows of
# NaN weights for either; a NaN in the token: 8 rows of NaN; the logit of an expert that is not wanted set to -Inf: 0.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install -q --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6

cat >moe.py <<'CODE'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

EXPERTS, WIDTH, INNER, CHOSEN = 8, 32, 16, 2
random = np.random.default_rng(0)


def weights(name, *shape):
    return numpy_helper.from_array((random.standard_normal(shape) / 4).astype(np.float32), name)


def session():
    nodes = [
        helper.make_node("MoE", ["x", "logits", "up", "", "down"], ["y"], domain="com.microsoft", k=CHOSEN,
                         activation_type="silu", normalize_routing_weights=1),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=-1),
        helper.make_node("TopK", ["scores", "chosen"], ["top", "experts"], axis=-1),
    ]
    values = [helper.make_tensor_value_info(name, kind, None) for name, kind in
              (("x", TensorProto.FLOAT), ("logits", TensorProto.FLOAT), ("y", TensorProto.FLOAT), ("top", TensorProto.FLOAT))]
    graph = helper.make_graph(nodes, "moe", values[:2], values[2:], [
        weights("up", EXPERTS, INNER, WIDTH), weights("down", EXPERTS, WIDTH, INNER),
        numpy_helper.from_array(np.array([CHOSEN]), "chosen"),
    ])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


model = session()
x = random.standard_normal((EXPERTS, WIDTH)).astype(np.float32)
logits = random.standard_normal((EXPERTS, EXPERTS)).astype(np.float32)
clean, _ = model.run(None, {"x": x, "logits": logits})
assert (np.abs(clean).max(axis=1) > 0).all()
each = np.arange(EXPERTS)


def ask(tokens, router):
    y, top = model.run(None, {"x": tokens, "logits": router})
    return (y == 0).all(axis=1).sum(), np.isnan(y).all(axis=1).sum(), np.isnan(top).all(axis=1).sum()


def bad_logit(value):
    router = logits.copy()
    router[each, each] = value
    zeros, nans, weights_nan = ask(x, router)
    print(f"a logit of {value}: {zeros} of {EXPERTS} rows of zeros, {nans} of NaN; Softmax and TopK: {weights_nan} rows of NaN")
    return zeros, nans, weights_nan


print(f"onnxruntime {onnxruntime.__version__}")
assert bad_logit(np.nan) == bad_logit(np.inf) == (EXPERTS, 0, EXPERTS)
masked = logits.copy()
masked[each, logits.argmin(axis=1)] = -np.inf
damaged = x.copy()
damaged[:, 0] = np.nan
print(f"the smallest logit -Inf: {ask(x, masked)[0]} rows of zeros; a NaN in the token: {ask(damaged, logits)[1]} rows of NaN")
assert ask(x, masked)[0] == 0 and ask(damaged, logits)[1] == EXPERTS
CODE
venv/bin/python moe.py
echo "still so in ONNX Runtime 1.32.0"
