"""Checks that generated Python code writes and reads the bytes of the contract.

wire.py MESSAGES      (tests/golden/wire/messages.txt, which is described in make_wire_golden.py)
"""

import pathlib
import sys

from expertmesh.v1 import control_pb2, errors_pb2, node_pb2, router_pb2, tensor_pb2
from google.protobuf import json_format

FILES = (tensor_pb2, errors_pb2, node_pb2, router_pb2, control_pb2)


def check(line):
    """What is wrong with a line; None when nothing is."""
    name, direction, data, content = line.split(" ", 3)
    golden = bytes.fromhex("" if data == "-" else data)
    (message_type,) = [getattr(file, name) for file in FILES if hasattr(file, name)]
    wanted = json_format.Parse(content, message_type())
    if direction == "both":
        written = wanted.SerializeToString(deterministic=True)
        if written != golden:
            return f"{name}: wrote {written.hex()}, expected {data}"
    read = message_type.FromString(golden)
    if json_format.MessageToDict(read) != json_format.MessageToDict(wanted):
        return f"{name}: read {json_format.MessageToJson(read)} from {data}, expected {content}"
    return None


def main(arguments):
    if len(arguments) != 1:
        print("usage: wire.py MESSAGES", file=sys.stderr)
        return 2
    lines = pathlib.Path(arguments[0]).read_text(encoding="utf-8").splitlines()
    problems = [problem for problem in map(check, lines) if problem]
    print("\n".join([*problems, f"{len(lines)} messages, {len(problems)} wrong"]))
    return 1 if problems or not lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
