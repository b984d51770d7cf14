// The smallest useful program: asks a router for the output of one layer.
import { credentials, Metadata, type ServiceError } from "@grpc/grpc-js";

import { RequestStatus } from "../expertmesh/v1/errors.js";
import { ForwardRequest, RouterClient } from "../expertmesh/v1/router.js";
import { Dtype } from "../expertmesh/v1/tensor.js";
import { ErrorInfo } from "./google/rpc/error_details.js";

// gRPC's own limit is 4 MiB.
const options = { "grpc.max_receive_message_length": 1 << 30 };
const router = new RouterClient(process.argv[2], credentials.createInsecure(), options);
const hiddenStates = { dtype: Dtype.DTYPE_F32, shape: [1n, 32n], data: Buffer.alloc(4 * 32) };
const request = ForwardRequest.create({ layer: 1, hiddenStates });

function explain(error: ServiceError): string {
  for (const status of error.metadata.get("grpc-status-details-bin")) {
    for (const { typeUrl, value } of RequestStatus.decode(status as Buffer).details) {
      const info = typeUrl.endsWith("/google.rpc.ErrorInfo") ? ErrorInfo.decode(value) : undefined;
      if (info?.reason === "EXPERTS_MISSING") {
        return `no node holds experts ${info.metadata.experts}: try later`;
      }
    }
  }
  return error.message;
}

const call = { deadline: Date.now() + 30_000 };
router.forward(request, new Metadata(), call, (error, answer) => {
  console.log(
    error ? explain(error) : `[${answer.output?.shape}] ${answer.output?.data.length} bytes`,
  );
  process.exitCode = error ? 1 : 0;
  router.close();
});
