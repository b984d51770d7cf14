// What all programs call a router with.
import { createGrpcTransport } from "@connectrpc/connect-node";

const SECONDS = 60;

/** Calls have a deadline; answers may be as large as a router sends them. */
export function transport(router: string) {
  return createGrpcTransport({
    baseUrl: `http://${router}`,
    defaultTimeoutMs: 1000 * SECONDS,
    readMaxBytes: 2 ** 31 - 1,
  });
}
