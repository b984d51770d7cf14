// Calls of @grpc/grpc-js as promises.
import { type CallOptions, Metadata, type ServiceError } from "@grpc/grpc-js";

const SECONDS = 60;

/** When a call that begins now has to be over. */
export function deadline(): number {
  return Date.now() + 1000 * SECONDS;
}

/** A call with a deadline, as a promise. */
export function call<Request, Answer>(
  method: (
    request: Request,
    metadata: Metadata,
    options: Partial<CallOptions>,
    done: (error: ServiceError | null, answer: Answer) => void,
  ) => unknown,
  request: Request,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    method(request, new Metadata(), { deadline: deadline() }, (error, answer) =>
      error === null ? resolve(answer) : reject(error),
    );
  });
}

interface Incoming<Answer> extends AsyncIterable<Answer> {
  cancel(): void;
}

/** The messages of a stream until its end, or the first few: then the stream is cancelled. */
export async function messages<Answer>(stream: Incoming<Answer>, most = Infinity) {
  const received: Answer[] = [];
  for await (const message of stream) {
    received.push(message);
    if (received.length >= most) {
      stream.cancel();
      break;
    }
  }
  return received;
}
