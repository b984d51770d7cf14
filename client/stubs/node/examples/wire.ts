// Checks that generated TypeScript code writes and reads the bytes of the contract.
//
//   wire.js MESSAGES
//
// MESSAGES is tests/golden/wire/messages.txt, which is described in make_wire_golden.py.
import { readFileSync } from "node:fs";

import * as control from "../expertmesh/v1/control.js";
import * as errors from "../expertmesh/v1/errors.js";
import * as node from "../expertmesh/v1/node.js";
import * as router from "../expertmesh/v1/router.js";
import * as tensor from "../expertmesh/v1/tensor.js";

// What every generated message has.
interface Codec {
  encode(message: unknown): { finish(): Uint8Array };
  decode(data: Uint8Array): unknown;
  fromJSON(json: unknown): unknown;
  toJSON(message: unknown): unknown;
}
const codecs = { ...tensor, ...errors, ...router, ...node, ...control } as unknown as Record<
  string,
  Codec
>;

/** What is wrong with a line; empty when nothing is. */
function check(line: string): string {
  const columns = /^(\S+) (\S+) (\S+) (.*)$/.exec(line);
  if (columns === null) {
    return `not four columns: ${line}`;
  }
  const [, name, direction, hex, content] = columns;
  const codec = codecs[name];
  const wanted = codec.fromJSON(JSON.parse(content));
  const golden = Buffer.from(hex === "-" ? "" : hex, "hex");
  if (direction === "both") {
    const written = Buffer.from(codec.encode(wanted).finish());
    if (!written.equals(golden)) {
      return `${name}: wrote ${written.toString("hex")}, expected ${hex}`;
    }
  }
  const read = JSON.stringify(codec.toJSON(codec.decode(golden)));
  if (read !== JSON.stringify(codec.toJSON(wanted))) {
    return `${name}: read ${read} from ${hex}, expected ${content}`;
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
