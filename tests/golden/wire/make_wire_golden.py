"""Makes messages.txt and internal_messages.txt: messages of the contract and the exact bytes that each is on
the wire.

    python3 tests/golden/wire/make_wire_golden.py [FOLDER]

One message a line, four columns with one space between them; the last is the rest of the line:

    TYPE DIRECTION HEX JSON

TYPE is a message of package expertmesh.v1, in internal_messages.txt of expertmesh.internal.v1. JSON is its content in protobuf's JSON mapping. HEX is its bytes
("-" for none). DIRECTION is "both" where generated code writes exactly these bytes and reads them back, and
"read" where it must understand them though it writes others.

The bytes are put together here, from the rules of the encoding and field numbers written out by hand, by none
of the code that they test. A line fails when somebody changes the number or the type of a field.
"""

import base64
import json
import pathlib
import struct
import sys

VARINT, BYTES, FIXED32 = 0, 2, 5


def varint(value):
    value &= 2**64 - 1  # A negative int32 or int64 is the ten bytes of its two's complement.
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field, value):
    return varint(field << 3 | VARINT) + varint(value)


def blob(field, value):
    """A string, bytes, a message or a packed list."""
    value = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | BYTES) + varint(len(value)) + value


def numbers(field, values):
    return blob(field, b"".join(varint(value) for value in values))


def floats(field, values):
    return blob(field, struct.pack(f"<{len(values)}f", *values))


def text(value):
    return base64.b64encode(value).decode()


F32, BF16, INT8_BLOCK128 = 1, 2, 4
# Every byte value, so that code which takes tensor data for text fails.
RAW = bytes(range(256))

TENSOR = number(1, F32) + numbers(2, [2, 3]) + blob(1000, struct.pack("<6f", *range(6)))
TENSOR_JSON = {
    "dtype": "DTYPE_F32",
    "shape": ["2", "3"],
    "data": text(struct.pack("<6f", *range(6))),
}
BF16_TENSOR = number(1, BF16) + numbers(2, [1, 128]) + blob(1000, RAW)
BF16_TENSOR_JSON = {"dtype": "DTYPE_BF16", "shape": ["1", "128"], "data": text(RAW)}
MEMORY = number(1, 2**40) + number(2, 1) + number(4, 300)
MEMORY_JSON = {"weightsBytes": str(2**40), "residentBytes": "1", "checkpointBytes": "300"}
HOSTED = number(1, 3) + numbers(2, [0, 127, 128]) + number(3, 1) + number(4, 2)
HOSTED_JSON = {"layer": 3, "experts": [0, 127, 128], "sliceIndex": 1, "sliceCount": 2}
DESCRIPTION = (
    blob(1, "node-0:50061")
    + blob(2, "deepseek_v3")
    + blob(3, "0123abcd" * 8)
    + number(4, 7168)
    + blob(5, "cpu")
    + number(6, BF16)
    + number(7, 2)
    + blob(8, HOSTED)
    + blob(9, MEMORY)
    + number(10, 4096)
    + number(11, 1048576)
    + blob(12, "as expected")
    + blob(14, "cd" * 32)
    + blob(15, "5d1e0f5d1e0f5d1e")
)
DESCRIPTION_JSON = {
    "nodeId": "node-0:50061",
    "family": "deepseek_v3",
    "fingerprint": "0123abcd" * 8,
    "dModel": 7168,
    "backend": "cpu",
    "computeDtype": "DTYPE_BF16",
    "state": "NODE_STATE_READY",
    "hosted": [HOSTED_JSON],
    "memory": MEMORY_JSON,
    "maxBatchRows": 4096,
    "maxFrameBytes": "1048576",
    "message": "as expected",
    "outline": "cd" * 32,
    "instanceId": "5d1e0f5d1e0f5d1e",
}
TOPOLOGY_NODE = (
    blob(1, "10.0.0.7:50061")
    + number(2, 3)
    + blob(3, "serves another model")
    + blob(4, DESCRIPTION)
    + number(5, 2)
    + number(6, 300)
    + number(7, 1)
    + number(13, 2)
    + number(14, 5)
)
TOPOLOGY_NODE_JSON = {
    "address": "10.0.0.7:50061",
    "link": "NODE_LINK_REFUSED",
    "reason": "serves another model",
    "description": DESCRIPTION_JSON,
    "batchesInFlight": 2,
    "rowsInFlight": "300",
    "disconnects": "1",
    "ejections": "2",
    "overdueBatches": "5",
}
TOPOLOGY = (
    number(1, 5)
    + number(2, 1)
    + blob(3, "ab" * 32)
    + blob(4, TOPOLOGY_NODE)
    + blob(5, number(1, 4) + numbers(2, [1, 2]))
    + blob(6, "cannot resolve nodes.mesh")
)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
MESSAGE = "layer is 9; the model's MoE layers are 1 to 3 – see DescribeModel"

# TYPE, DIRECTION, bytes, JSON.
MESSAGES = [
    ("Tensor", "both", TENSOR, TENSOR_JSON),
    (
        "Tensor",
        "both",
        number(1, INT8_BLOCK128)
        + numbers(2, [2, 128])
        + blob(3, struct.pack("<2f", 0.5, 2.0))
        + blob(1000, RAW),
        {
            "dtype": "DTYPE_INT8_BLOCK128",
            "shape": ["2", "128"],
            "scales": text(struct.pack("<2f", 0.5, 2.0)),
            "data": text(RAW),
        },
    ),
    # No tokens: the zero of the shape is there, the empty data is not.
    (
        "Tensor",
        "both",
        number(1, BF16) + numbers(2, [0, 8]),
        {"dtype": "DTYPE_BF16", "shape": ["0", "8"]},
    ),
    (
        "ForwardRequest",
        "both",
        number(1, 2**64 - 1)
        + number(2, 2**32 - 1)
        + number(3, 250_000)
        + blob(4, TRACEPARENT)
        + blob(5, "vendor=1")
        + number(6, 1)
        + number(7, F32)
        + blob(8, blob(1, "acme.token_ids") + blob(2, blob(1, RAW)))
        + numbers(9, [1, 300])
        + numbers(10, [0, 65536, 2**32 - 1])
        + number(11, 2**63)
        + blob(1000, BF16_TENSOR),
        {
            "requestId": str(2**64 - 1),
            "layer": 2**32 - 1,
            "timeoutUs": "250000",
            "traceparent": TRACEPARENT,
            "tracestate": "vendor=1",
            "returnRouting": True,
            "outputDtype": "DTYPE_F32",
            "extensions": {"acme.token_ids": {"raw": text(RAW)}},
            "groupSizes": [1, 300],
            "tokenIds": [0, 65536, 2**32 - 1],
            "routingSeed": str(2**63),
            "hiddenStates": BF16_TENSOR_JSON,
        },
    ),
    # An absent deadline is none, a zero one has passed, and both differ from a negative one.
    ("ForwardRequest", "both", blob(1000, TENSOR), {"hiddenStates": TENSOR_JSON}),
    (
        "ForwardRequest",
        "both",
        number(2, 1) + number(3, 0) + number(11, 0),
        {"layer": 1, "timeoutUs": "0", "routingSeed": "0"},
    ),
    (
        "ForwardRequest",
        "both",
        number(1, 1)
        + number(3, -(2**63))
        + blob(8, blob(1, "acme.scale") + blob(2, blob(2, TENSOR))),
        {
            "requestId": "1",
            "timeoutUs": str(-(2**63)),
            "extensions": {"acme.scale": {"tensor": TENSOR_JSON}},
        },
    ),
    (
        "ForwardResponse",
        "both",
        number(1, 2**53 + 1)
        + blob(2, b"")
        + number(3, 12)
        + blob(
            4,
            number(1, 2)
            + numbers(2, [255, 0, 7, 128])
            + floats(3, [0.75, 0.25, 1.5, -0.125])
            + numbers(4, [1, 3]),
        )
        + blob(
            5,
            number(1, 1)
            + number(2, 2)
            + number(3, 300)
            + number(4, 4)
            + number(5, 64)
            + number(6, 3)
            + number(7, 128)
            + number(8, 2**32),
        )
        + blob(6, number(1, 5) + number(2, 6))
        + blob(6, number(2, 7))
        + blob(1000, TENSOR),
        {
            "requestId": str(2**53 + 1),
            "status": {},
            "epoch": "12",
            "routing": {
                "expertsPerToken": 2,
                "expertIds": [255, 0, 7, 128],
                "expertWeights": [0.75, 0.25, 1.5, -0.125],
                "assignmentsPerToken": [1, 3],
            },
            "timing": {
                "queueUs": "1",
                "routeUs": "2",
                "expertsUs": "300",
                "combineUs": "4",
                "batchTokens": 64,
                "nodes": 3,
                "nodeQueueUs": "128",
                "nodeComputeUs": str(2**32),
            },
            "dropped": [{"token": 5, "expert": 6}, {"expert": 7}],
            "output": TENSOR_JSON,
        },
    ),
    (
        "ForwardResponse",
        "both",
        number(1, 7) + blob(2, number(1, 3) + blob(2, MESSAGE)),
        {"requestId": "7", "status": {"code": 3, "message": MESSAGE}},
    ),
    ("DescribeModelRequest", "both", b"", {}),
    (
        "DescribeModelResponse",
        "both",
        blob(1, "qwen3_moe")
        + blob(2, "ab" * 32)
        + number(3, 2048)
        + number(4, BF16)
        + blob(
            5,
            number(2, 128)
            + number(3, 8)
            + number(4, 768)
            + number(5, 1536)
            + blob(6, '{"score": "softmax"}'),
        )
        + blob(5, number(1, 1))
        + number(6, 2**31)
        + blob(9, "cd" * 32),
        {
            "family": "qwen3_moe",
            "fingerprint": "ab" * 32,
            "outline": "cd" * 32,
            "dModel": 2048,
            "activationDtype": "DTYPE_BF16",
            "layers": [
                {
                    "numExperts": 128,
                    "expertsPerToken": 8,
                    "intermediateSize": 768,
                    "sharedIntermediateSize": 1536,
                    "routing": '{"score": "softmax"}',
                },
                {"layer": 1},
            ],
            "maxMessageBytes": str(2**31),
        },
    ),
    ("NodeDescription", "both", DESCRIPTION, DESCRIPTION_JSON),
    (
        "Topology",
        "both",
        TOPOLOGY,
        {
            "epoch": "5",
            "ready": True,
            "fingerprint": "ab" * 32,
            "nodes": [TOPOLOGY_NODE_JSON],
            "missing": [{"layer": 4, "experts": [1, 2]}],
            "lookupError": "cannot resolve nodes.mesh",
        },
    ),
    ("GetTopologyResponse", "both", blob(1, number(1, 5)), {"topology": {"epoch": "5"}}),
    ("WatchTopologyRequest", "both", number(1, 2500), {"heartbeatMs": 2500}),
    ("WatchTopologyResponse", "both", blob(1, number(1, 5)), {"topology": {"epoch": "5"}}),
    (
        "ForwardRequest",
        "both",
        number(1, 3) + number(12, 1) + number(13, 2**33),
        {"requestId": "3", "heartbeat": True, "maxResponseBytes": str(2**33)},
    ),
    ("ForwardResponse", "both", number(1, 3) + number(7, 1), {"requestId": "3", "heartbeat": True}),
    (
        "GetLoadResponse",
        "both",
        number(1, 5) + blob(2, number(1, 1) + number(2, 2**40) + numbers(3, [0, 2**63, 3])),
        {
            "epoch": "5",
            "layers": [{"layer": 1, "tokens": str(2**40), "assignments": ["0", str(2**63), "3"]}],
        },
    ),
    (
        "DrainNodeRequest",
        "both",
        blob(1, "10.0.0.7:50061") + number(2, 1),
        {"address": "10.0.0.7:50061", "resume": True},
    ),
    # Fields in any order, a list in pieces and not packed, a value said twice (the last one holds).
    (
        "Tensor",
        "read",
        blob(1000, struct.pack("<6f", *range(6)))
        + number(2, 2)
        + number(1, BF16)
        + numbers(2, [3])
        + number(1, F32),
        TENSOR_JSON,
    ),
    # Fields of a later version of the contract.
    (
        "ForwardResponse",
        "read",
        number(536870911, 1)
        + number(1, 7)
        + blob(2, number(1, 3) + blob(2, MESSAGE) + blob(999, RAW))
        + varint(998 << 3 | FIXED32)
        + b"\0\1\2\3",
        {"requestId": "7", "status": {"code": 3, "message": MESSAGE}},
    ),
]

# The same for messages between routers and nodes, of package expertmesh.internal.v1.
INTERNAL_MESSAGES = [
    (
        "ComputeRequest",
        "both",
        number(1, 9)
        + number(2, 3)
        + number(3, -1)
        + blob(4, TRACEPARENT)
        + number(6, 2)
        + number(7, 2)
        + number(8, 1)
        + numbers(9, [2, 1])
        + numbers(10, [5, 200, 5])
        + floats(11, [0.5, 0.25, 1.0])
        + blob(1000, TENSOR),
        {
            "batchId": "9",
            "layer": 3,
            "timeoutUs": "-1",
            "traceparent": TRACEPARENT,
            "epoch": "2",
            "totalRows": 2,
            "firstRow": 1,
            "assignmentsPerRow": [2, 1],
            "expertIds": [5, 200, 5],
            "expertWeights": [0.5, 0.25, 1.0],
            "hiddenStates": TENSOR_JSON,
        },
    ),
    (
        "ComputeResponse",
        "both",
        number(1, 9)
        + blob(2, b"")
        + number(3, 128)
        + number(4, 5)
        + number(5, 6)
        + blob(1000, TENSOR),
        {
            "batchId": "9",
            "status": {},
            "firstRow": 128,
            "queueUs": "5",
            "computeUs": "6",
            "partials": TENSOR_JSON,
        },
    ),
    (
        "WatchStatusResponse",
        "both",
        number(1, 3) + number(2, 4) + number(3, 1) + number(4, 64) + blob(5, DESCRIPTION),
        {
            "state": "NODE_STATE_DRAINING",
            "version": "4",
            "batchesInFlight": 1,
            "rowsInFlight": "64",
            "description": DESCRIPTION_JSON,
        },
    ),
    ("LoadExpertsRequest", "both", blob(1, HOSTED), {"experts": [HOSTED_JSON]}),
    (
        "LoadExpertsRequest",
        "both",
        blob(1, HOSTED) + number(2, 2**40),
        {"experts": [HOSTED_JSON], "term": str(2**40)},
    ),
    ("UnloadExpertsRequest", "both", number(2, 300), {"term": "300"}),
    (
        "UnloadExpertsResponse",
        "both",
        number(1, 3) + blob(2, MEMORY),
        {"unloaded": "3", "memory": MEMORY_JSON},
    ),
    ("DescribeResponse", "both", blob(1, DESCRIPTION), {"description": DESCRIPTION_JSON}),
]


def lines(messages):
    for name, direction, data, content in messages:
        content = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        yield f"{name} {direction} {data.hex() or '-'} {content}\n"


if __name__ == "__main__":
    here = pathlib.Path(__file__).resolve().parent
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here
    for file, messages in (("messages", MESSAGES), ("internal_messages", INTERNAL_MESSAGES)):
        (folder / f"{file}.txt").write_text("".join(lines(messages)), encoding="utf-8")
