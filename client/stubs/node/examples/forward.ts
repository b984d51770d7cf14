// Calls a router through generated TypeScript stubs, and compares its answers with golden ones.
//
//   forward.js ROUTER GOLDEN_DIR
import { readFileSync } from "node:fs";
import { join } from "node:path";

import { credentials } from "@grpc/grpc-js";

import { DescribeModelRequest, ForwardRequest, RouterClient } from "../expertmesh/v1/router.js";
import { Dtype } from "../expertmesh/v1/tensor.js";
import { call } from "./calls.js";
import { packBf16, packF32, unpackBf16, unpackF32, worstError } from "./tensors.js";

/** Sends `values` as `sent` and returns the answer, asked for as `answered`. */
async function forward(
  client: RouterClient,
  layer: number,
  values: Float32Array,
  dModel: number,
  sent: Dtype,
  answered: Dtype,
): Promise<Float32Array> {
  const request = ForwardRequest.create({
    layer,
    outputDtype: answered,
    hiddenStates: {
      dtype: sent,
      // 64-bit integers of the contract are bigint here.
      shape: [BigInt(Math.floor(values.length / dModel)), BigInt(dModel)],
      data: sent === Dtype.DTYPE_F32 ? packF32(values) : packBf16(values),
    },
  });
  const { output } = await call(client.forward.bind(client), request);
  if (output === undefined) {
    throw new Error("the answer has no output");
  }
  return output.dtype === Dtype.DTYPE_F32 ? unpackF32(output.data) : unpackBf16(output.data);
}

const CASES = [
  { sent: Dtype.DTYPE_F32, answered: Dtype.DTYPE_F32, name: "output.f32", tolerance: 1e-5 },
  {
    sent: Dtype.DTYPE_BF16,
    answered: Dtype.DTYPE_F32,
    name: "output_of_bf16_input.f32",
    tolerance: 1e-5,
  },
  {
    sent: Dtype.DTYPE_BF16,
    answered: Dtype.DTYPE_BF16,
    name: "output_of_bf16_input.f32",
    tolerance: 1e-2,
  },
];

/** True when every answer is within its tolerance. */
async function run(client: RouterClient, address: string, golden: string): Promise<boolean> {
  const model = await call(client.describeModel.bind(client), DescribeModelRequest.create());
  const { family, dModel } = model;
  const layer = model.layers[0].layer;
  console.log(`${address}: ${family}, d_model ${dModel}, first MoE layer ${layer}`);

  const hiddenStates = unpackF32(readFileSync(join(golden, "hidden_states.f32")));
  let good = true;
  for (const { sent, answered, name, tolerance } of CASES) {
    const actual = await forward(client, layer, hiddenStates, dModel, sent, answered);
    const expected = unpackF32(readFileSync(join(golden, name)));
    if (actual.length !== expected.length) {
      throw new Error(
        `the answer has ${actual.length} values, ${name} has ${expected.length}: ` +
          "does the router serve the golden checkpoint?",
      );
    }
    const { token, error } = worstError(actual, expected, dModel);
    const within = error <= tolerance;
    console.log(
      `${Dtype[sent]} to ${Dtype[answered]}: error ${error.toExponential(2)} at token ${token}, ` +
        `at most ${tolerance.toExponential(0)}: ${within ? "ok" : "TOO LARGE"}`,
    );
    good = good && within;
  }
  return good;
}

async function main(args: string[]): Promise<number> {
  if (args.length !== 2) {
    console.error("usage: forward.js ROUTER GOLDEN_DIR");
    return 2;
  }
  // Tensors are larger than gRPC's default limit of 4 MiB for a message received.
  const client = new RouterClient(args[0], credentials.createInsecure(), {
    "grpc.max_receive_message_length": -1,
  });
  try {
    return (await run(client, args[0], args[1])) ? 0 : 1;
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    return 1;
  } finally {
    client.close();
  }
}

process.exitCode = await main(process.argv.slice(2));
