#!/usr/bin/env bash
# ONNX Runtime 1.32.0 (PyPI, CPU): where experts tie, the operator com.microsoft.MoE takes those with the highest index;
# the operator TopK of the same runtime takes those with the lowest, as the ONNX standard says. A model whose router is
# written out (Softmax, TopK, gather) therefore sends such a token to other experts than the same model with the fused
# operator. Logits rounded to bfloat16 tie often enough for that.
#
# Seen: all 8 experts equal, k 1 to 4: TopK 0 | 0 1 | 0 1 2 | 0 1 2 3, MoE 7 | 6 7 | 5 6 7 | 4 5 6 7; 2000 tokens with 128
# experts, k 8, normal logits rounded to bfloat16: 120 have other experts; unrounded: 0.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install -q --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6 ml_dtypes==0.6.0

cat >ties.py <<'CODE'
import ml_dtypes
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


def experts(logits, k):
    """The sets that MoE and TopK choose, as rows of True and False."""
    count = logits.shape[1]
    # Expert e answers with 1 in column e: relu(1 * 1) times the unit vector, so that the answer tells who computed.
    nodes = [
        helper.make_node("MoE", ["x", "logits", "up", "", "down"], ["y"], domain="com.microsoft", k=k,
                         activation_type="relu", normalize_routing_weights=1),
        helper.make_node("TopK", ["logits", "k"], ["top", "ids"], axis=-1),
    ]
    up = np.zeros((count, 1, count), np.float32)
    up[:, 0, 0] = 1
    down = np.eye(count, dtype=np.float32)[:, :, None]
    constants = {"up": up, "down": down, "k": np.array([k])}
    values = [helper.make_tensor_value_info(name, kind, None) for name, kind in
              (("x", TensorProto.FLOAT), ("logits", TensorProto.FLOAT), ("y", TensorProto.FLOAT), ("ids", TensorProto.INT64))]
    graph = helper.make_graph(nodes, "ties", values[:2], values[2:],
                              [numpy_helper.from_array(value, name) for name, value in constants.items()])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    y, ids = session.run(None, {"x": np.ones((len(logits), count), np.float32), "logits": logits})
    top = np.zeros(logits.shape, bool)
    np.put_along_axis(top, ids, True, axis=1)
    assert ((y > 0).sum(axis=1) == k).all()
    return y > 0, top


print(f"onnxruntime {onnxruntime.__version__}")
for k in (1, 2, 3, 4):
    moe, top = (np.flatnonzero(chosen[0]).tolist() for chosen in experts(np.zeros((1, 8), np.float32), k))
    print(f"8 equal logits, k {k}: TopK {top}, MoE {moe}")
    assert top == list(range(k)) and moe == list(range(8 - k, 8))

logits = np.random.default_rng(0).standard_normal((2000, 128)).astype(np.float32)
differ = []
for name, given in (("bfloat16", logits.astype(ml_dtypes.bfloat16).astype(np.float32)), ("float32", logits)):
    moe, top = experts(given, 8)
    differ.append(int((moe != top).any(axis=1).sum()))
    print(f"128 logits of {name}, k 8: {differ[-1]} of 2000 tokens have other experts")
assert differ[0] > 100 and differ[1] == 0
CODE
venv/bin/python ties.py
echo "still so in ONNX Runtime 1.32.0"
