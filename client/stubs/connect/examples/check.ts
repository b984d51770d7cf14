// Checks what Connect's client for Node.js can do with a router: one line for each of the columns.
//
//   check.js ROUTER GOLDEN_DIR
import { readFileSync } from "node:fs";
import { join } from "node:path";

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { type Client, Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";

import { Control, type Topology } from "../expertmesh/v1/control_pb.js";
import { type RequestStatus } from "../expertmesh/v1/errors_pb.js";
import { ForwardRequestSchema, type ForwardResponse, Router } from "../expertmesh/v1/router_pb.js";
import { Dtype } from "../expertmesh/v1/tensor_pb.js";
import { BadRequestSchema, ErrorInfoSchema } from "./google/rpc/error_details_pb.js";
import { Health, HealthCheckResponse_ServingStatus } from "./grpc/health/v1/health_pb.js";
import { ServerReflection } from "./grpc/reflection/v1/reflection_pb.js";
import { unpackF32, worstError } from "./tensors.js";
import { transport } from "./transport.js";

const BIG_BYTES = 60_000_000;

type ForwardRequest = MessageInitShape<typeof ForwardRequestSchema>;

function require(condition: boolean, said: string): void {
  if (!condition) {
    throw new Error(said);
  }
}

/** A stream of requests from a list. */
async function* each<T>(...messages: T[]) {
  yield* messages;
}

/** All of a stream of answers. */
async function all<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const received: T[] = [];
  for await (const message of stream) {
    received.push(message);
  }
  return received;
}

/** Fails unless an error says that the layer is wrong. */
function requireNamesLayer(error: ConnectError): void {
  const reason = error.findDetails(ErrorInfoSchema)[0]?.reason;
  const [request] = error.findDetails(BadRequestSchema);
  const fields = request?.fieldViolations.map(({ field }) => field);
  require(error.code === Code.InvalidArgument &&
    reason === "INVALID_FIELD" &&
    `${fields}` === "layer", `code ${error.code}, reason ${reason}, fields ${fields}`);
}

/** The same of the status of an answer on a stream. */
function requireStatusNamesLayer(status: RequestStatus | undefined): void {
  let reason = "";
  let fields: string[] = [];
  for (const detail of status?.details ?? []) {
    reason ||= anyUnpack(detail, ErrorInfoSchema)?.reason ?? "";
    fields.push(
      ...(anyUnpack(detail, BadRequestSchema)?.fieldViolations ?? []).map(({ field }) => field),
    );
  }
  require(status?.code === Code.InvalidArgument &&
    reason === "INVALID_FIELD" &&
    `${fields}` === "layer", `code ${status?.code}, reason ${reason}, fields ${fields}`);
}

/** A method for each column. */
class Checker {
  private readonly transport: Transport;
  private readonly router: Client<typeof Router>;
  private readonly hiddenStates: Buffer;
  private readonly expected: Float32Array;
  private layer = 0;
  private dModel = 0;

  constructor(address: string, golden: string) {
    this.transport = transport(address);
    this.router = createClient(Router, this.transport);
    this.hiddenStates = readFileSync(join(golden, "hidden_states.f32"));
    this.expected = unpackF32(readFileSync(join(golden, "output.f32")));
  }

  private request(layer: number, data: Buffer, requestId = 0n) {
    const shape = [BigInt(data.length / 4 / this.dModel), BigInt(this.dModel)];
    return { requestId, layer, hiddenStates: { dtype: Dtype.F32, shape, data } };
  }

  private requireGolden(data: Uint8Array | undefined): void {
    const actual = unpackF32(Buffer.from(data ?? []));
    require(actual.length === this.expected.length, `${actual.length} values`);
    const { token, error } = worstError(actual, this.expected, this.dModel);
    require(error <= 1e-5, `error ${error} at token ${token}`);
  }

  /** Sends requests on one stream and returns all answers. */
  private exchange(...requests: ForwardRequest[]): Promise<ForwardResponse[]> {
    const messages = requests.map((request) => create(ForwardRequestSchema, request));
    return all(this.router.forwardStream(each(...messages)));
  }

  async unary(): Promise<void> {
    const model = await this.router.describeModel({});
    require(model.layers.length > 0, "the model has no layer");
    this.layer = model.layers[0].layer;
    this.dModel = model.dModel;
  }

  async stream(): Promise<void> {
    const ids = [1n, 2n, 3n];
    const requests = ids.map((id) => this.request(this.layer, this.hiddenStates, id));
    const answers = await this.exchange(...requests);
    answers.forEach((answer) => this.requireGolden(answer.output?.data));
    const answered = answers.map((answer) => answer.requestId).sort();
    require(`${answered}` === `${ids}`, `answers to ${answered}`);
  }

  async watch(): Promise<void> {
    const control = createClient(Control, this.transport);
    // Before Connect 2.3, leaving the loop ends neither the call nor its timer: that takes an abort,
    // read to its end.
    const enough = new AbortController();
    let first: Topology | undefined;
    try {
      for await (const { topology } of control.watchTopology({}, { signal: enough.signal })) {
        first ??= topology;
        enough.abort();
      }
    } catch (error) {
      require(ConnectError.from(error).code === Code.Canceled, `${error}`);
    }
    const nodes = first?.nodes.length ?? 0;
    require(first?.ready === true && nodes > 0, `ready ${first?.ready}, ${nodes} nodes`);
  }

  async health(): Promise<void> {
    const health = createClient(Health, this.transport);
    for (const service of ["", "ready", "expertmesh.v1.Control"]) {
      const { status } = await health.check({ service });
      const name = HealthCheckResponse_ServingStatus[status];
      require(name === "SERVING", `"${service}" is ${name}`);
    }
  }

  async reflection(): Promise<void> {
    const reflection = createClient(ServerReflection, this.transport);
    const request = { messageRequest: { case: "listServices", value: "" } } as const;
    const [{ messageResponse }] = await all(reflection.serverReflectionInfo(each(request)));
    const services =
      messageResponse.case === "listServicesResponse" ? messageResponse.value.service : [];
    const names = services.map(({ name }) => name);
    require(names.includes("expertmesh.v1.Router"), `no Router in ${names}`);
  }

  /** A message of 60 MB on the way there and back: the golden tokens, over and over. */
  async big(): Promise<void> {
    const one = this.hiddenStates;
    const count = Math.floor(BIG_BYTES / one.length);
    const request = this.request(this.layer, Buffer.alloc(count * one.length, one));
    const data = (await this.router.forward(request)).output?.data ?? new Uint8Array();
    require(data.length === count * one.length, `${data.length} bytes`);
    this.requireGolden(data.subarray(0, one.length));
    this.requireGolden(data.subarray(-one.length));
  }

  async errors(): Promise<void> {
    const wrong = this.request(this.layer + 1000, Buffer.alloc(4 * this.dModel));
    const error = await this.router.forward(wrong).then(
      () => new ConnectError("unary: no error"),
      (refused) => ConnectError.from(refused),
    );
    requireNamesLayer(error);
    const [{ status }] = await this.exchange(wrong);
    requireStatusNamesLayer(status);
  }

  async bits(): Promise<void> {
    const { output } = await this.router.forward(this.request(this.layer, this.hiddenStates));
    this.requireGolden(output?.data);
  }
}

const COLUMNS = [
  "unary",
  "stream",
  "watch",
  "health",
  "reflection",
  "big",
  "errors",
  "bits",
] as const;

async function main(args: string[]): Promise<number> {
  if (args.length !== 2) {
    console.error("usage: check.js ROUTER GOLDEN_DIR");
    return 2;
  }
  const checker = new Checker(args[0], args[1]);
  let exit = 0;
  for (const column of COLUMNS) {
    try {
      await checker[column]();
      console.log(`${column} yes`);
    } catch (error) {
      console.log(`${column} no: ${error}`.replace(/\s+/g, " "));
      exit = 1;
    }
  }
  return exit;
}

process.exitCode = await main(process.argv.slice(2));
