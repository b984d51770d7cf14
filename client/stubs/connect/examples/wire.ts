// Checks that protobuf-es writes and reads the bytes of the contract.
//
//   wire.js MESSAGES
//
// MESSAGES is tests/golden/wire/messages.txt, which is described in make_wire_golden.py.
import { readFileSync } from "node:fs";

import {
  createRegistry,
  equals,
  fromBinary,
  fromJson,
  toBinary,
  toJsonString,
} from "@bufbuild/protobuf";

import { file_expertmesh_v1_control } from "../expertmesh/v1/control_pb.js";
import { file_expertmesh_v1_errors } from "../expertmesh/v1/errors_pb.js";
import { file_expertmesh_v1_node } from "../expertmesh/v1/node_pb.js";
import { file_expertmesh_v1_router } from "../expertmesh/v1/router_pb.js";
import { file_expertmesh_v1_tensor } from "../expertmesh/v1/tensor_pb.js";

const registry = createRegistry(
  file_expertmesh_v1_tensor,
  file_expertmesh_v1_errors,
  file_expertmesh_v1_node,
  file_expertmesh_v1_router,
  file_expertmesh_v1_control,
);

/** What is wrong with a line; empty when nothing is. */
function check(line: string): string {
  const columns = /^(\S+) (\S+) (\S+) (.*)$/.exec(line);
  if (columns === null) {
    return `not four columns: ${line}`;
  }
  const [, name, direction, hex, content] = columns;
  const schema = registry.getMessage(`expertmesh.v1.${name}`);
  if (schema === undefined) {
    return `${name}: no such message`;
  }
  const wanted = fromJson(schema, JSON.parse(content));
  const golden = Buffer.from(hex === "-" ? "" : hex, "hex");
  if (direction === "both") {
    const written = Buffer.from(toBinary(schema, wanted));
    if (!written.equals(golden)) {
      return `${name}: wrote ${written.toString("hex")}, expected ${hex}`;
    }
  }
  // What a later version added is no difference.
  const read = fromBinary(schema, golden, { readUnknownFields: false });
  if (!equals(schema, read, wanted)) {
    return `${name}: read ${toJsonString(schema, read)} from ${hex}, expected ${content}`;
  }
  return "";
}

function main(args: string[]): number {
  if (args.length !== 1) {
    console.error("usage: wire.js MESSAGES");
    return 2;
  }
  const lines = readFileSync(args[0], "utf8")
    .split("\n")
    .filter((line) => line !== "");
  const problems = lines.map(check).filter((problem) => problem !== "");
  problems.forEach((problem) => console.log(problem));
  console.log(`${lines.length} messages, ${problems.length} wrong`);
  return problems.length > 0 || lines.length === 0 ? 1 : 0;
}

process.exitCode = main(process.argv.slice(2));
