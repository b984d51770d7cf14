// The smallest useful program: asks a router for the output of one layer.
import { ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

import { Router } from "../expertmesh/v1/router_pb.js";
import { Dtype } from "../expertmesh/v1/tensor_pb.js";
import { ErrorInfoSchema } from "./google/rpc/error_details_pb.js";

const baseUrl = `http://${process.argv[2]}`;
const router = createClient(Router, createGrpcTransport({ baseUrl, readMaxBytes: 2 ** 30 }));
const hiddenStates = { dtype: Dtype.F32, shape: [1n, 32n], data: new Uint8Array(4 * 32) };
try {
  const { output } = await router.forward({ layer: 1, hiddenStates }, { timeoutMs: 30_000 });
  console.log(`[${output?.shape}] ${output?.data.length} bytes`);
} catch (error) {
  for (const { reason, metadata } of ConnectError.from(error).findDetails(ErrorInfoSchema)) {
    if (reason === "EXPERTS_MISSING") {
      console.log(`no node holds experts ${metadata.experts}: try later`);
    }
  }
  throw error;
}
