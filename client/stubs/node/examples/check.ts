// Checks what @grpc/grpc-js can do with a router: one line for each of the columns.
//
//   check.js ROUTER GOLDEN_DIR
import { readFileSync } from "node:fs";
import { join } from "node:path";

import { Client, credentials, type ServiceError, status as code } from "@grpc/grpc-js";

import { ControlClient, WatchTopologyRequest } from "../expertmesh/v1/control.js";
import { RequestStatus } from "../expertmesh/v1/errors.js";
import {
  DescribeModelRequest,
  ForwardRequest,
  type ForwardResponse,
  RouterClient,
} from "../expertmesh/v1/router.js";
import { Dtype } from "../expertmesh/v1/tensor.js";
import { call, deadline, messages } from "./calls.js";
import { BadRequest, ErrorInfo } from "./google/rpc/error_details.js";
import { HealthCheckResponse_ServingStatus, HealthClient } from "./grpc/health/v1/health.js";
import {
  ServerReflectionClient,
  ServerReflectionRequest,
  type ServerReflectionResponse,
} from "./grpc/reflection/v1/reflection.js";
import { unpackF32, worstError } from "./tensors.js";

const BIG_BYTES = 60_000_000;

function require(condition: boolean, said: string): void {
  if (!condition) {
    throw new Error(said);
  }
}

/** Fails unless a status says that the layer is wrong. */
function requireNamesLayer(status: RequestStatus): void {
  let reason = "";
  let fields: string[] = [];
  for (const { typeUrl, value } of status.details) {
    if (typeUrl.endsWith("/google.rpc.ErrorInfo")) {
      reason = ErrorInfo.decode(value).reason;
    } else if (typeUrl.endsWith("/google.rpc.BadRequest")) {
      fields = BadRequest.decode(value).fieldViolations.map(({ field }) => field);
    }
  }
  require(status.code === code.INVALID_ARGUMENT &&
    reason === "INVALID_FIELD" &&
    `${fields}` === "layer", `code ${status.code}, reason ${reason}, fields ${fields}`);
}

/** A method for each column. */
class Checker {
  private readonly router: RouterClient;
  private readonly hiddenStates: Buffer;
  private readonly expected: Float32Array;
  private readonly options = { "grpc.max_receive_message_length": -1 };
  private readonly open: Client[] = [];
  private layer = 0;
  private dModel = 0;

  constructor(
    private readonly address: string,
    golden: string,
  ) {
    this.router = this.client(RouterClient);
    this.hiddenStates = readFileSync(join(golden, "hidden_states.f32"));
    this.expected = unpackF32(readFileSync(join(golden, "output.f32")));
  }

  private client<T extends Client>(
    kind: new (...to: ConstructorParameters<typeof Client>) => T,
  ): T {
    const made = new kind(this.address, credentials.createInsecure(), this.options);
    this.open.push(made);
    return made;
  }

  close(): void {
    this.open.forEach((client) => client.close());
  }

  private request(layer: number, data: Buffer, requestId = 0n): ForwardRequest {
    const shape = [BigInt(data.length / 4 / this.dModel), BigInt(this.dModel)];
    const hiddenStates = { dtype: Dtype.DTYPE_F32, shape, data };
    return ForwardRequest.create({ requestId, layer, hiddenStates });
  }

  private requireGolden(data: Buffer | undefined): void {
    const actual = unpackF32(data ?? Buffer.alloc(0));
    require(actual.length === this.expected.length, `${actual.length} values`);
    const { token, error } = worstError(actual, this.expected, this.dModel);
    require(error <= 1e-5, `error ${error} at token ${token}`);
  }

  /** Sends requests on one stream and returns all answers. */
  private exchange(...requests: ForwardRequest[]): Promise<ForwardResponse[]> {
    const stream = this.router.forwardStream({ deadline: deadline() });
    requests.forEach((request) => stream.write(request));
    stream.end();
    return messages<ForwardResponse>(stream);
  }

  async unary(): Promise<void> {
    const { router } = this;
    const model = await call(router.describeModel.bind(router), DescribeModelRequest.create());
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
    const control = this.client(ControlClient);
    const options = { deadline: deadline() };
    const watch = control.watchTopology(WatchTopologyRequest.create(), options);
    const [first] = await messages(watch, 1);
    const { ready, nodes } = first.topology ?? { ready: false, nodes: [] };
    require(ready && nodes.length > 0, `ready ${ready}, ${nodes.length} nodes`);
  }

  async health(): Promise<void> {
    const health = this.client(HealthClient);
    for (const service of ["", "ready", "expertmesh.v1.Control"]) {
      const { status } = await call(health.check.bind(health), { service });
      const name = HealthCheckResponse_ServingStatus[status];
      require(name === "SERVING", `"${service}" is ${name}`);
    }
  }

  async reflection(): Promise<void> {
    const client = this.client(ServerReflectionClient);
    const stream = client.serverReflectionInfo({ deadline: deadline() });
    stream.write(ServerReflectionRequest.create({ listServices: "" }));
    stream.end();
    const [answer] = await messages<ServerReflectionResponse>(stream);
    const names = answer.listServicesResponse?.service.map(({ name }) => name) ?? [];
    require(names.includes("expertmesh.v1.Router"), `no Router in ${names}`);
  }

  /** A message of 60 MB on the way there and back: the golden tokens, over and over. */
  async big(): Promise<void> {
    const { router, hiddenStates: one } = this;
    const count = Math.floor(BIG_BYTES / one.length);
    const request = this.request(this.layer, Buffer.alloc(count * one.length, one));
    const { output } = await call(router.forward.bind(router), request);
    const data = output?.data ?? Buffer.alloc(0);
    require(data.length === count * one.length, `${data.length} bytes`);
    this.requireGolden(data.subarray(0, one.length));
    this.requireGolden(data.subarray(-one.length));
  }

  async errors(): Promise<void> {
    const { router } = this;
    const wrong = this.request(this.layer + 1000, Buffer.alloc(4 * this.dModel));
    const error = await call(router.forward.bind(router), wrong).then(
      () => Promise.reject(new Error("unary: no error")),
      (refused: ServiceError) => refused,
    );
    // A google.rpc.Status, whose bytes are those of a RequestStatus.
    const [details] = error.metadata.get("grpc-status-details-bin") as Buffer[];
    requireNamesLayer(RequestStatus.decode(details));
    const [{ status }] = await this.exchange(wrong);
    requireNamesLayer(RequestStatus.create(status));
  }

  async bits(): Promise<void> {
    const request = this.request(this.layer, this.hiddenStates);
    const { output } = await call(this.router.forward.bind(this.router), request);
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
  checker.close();
  return exit;
}

process.exitCode = await main(process.argv.slice(2));
