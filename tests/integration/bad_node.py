"""A node that is up, heartbeats, and serves badly: it stands before a healthy one and spoils what that says."""

import concurrent.futures
import queue
import threading

import grpc

from internal_proto import message
from mesh import HOST, PATIENCE

COMPUTE = "/expertmesh.internal.v1.Expert/Compute"
WATCH = "/expertmesh.internal.v1.Expert/WatchStatus"

Response = message("ComputeResponse")
Status = message("WatchStatusResponse")


def error(code):
    """Every batch is answered with this gRPC code."""

    def spoil(answer):
        spoiled = Response(batch_id=answer.batch_id)
        spoiled.status.code = code
        spoiled.status.message = "as the test wants"
        return [spoiled]

    return spoil


def silent(_answer):
    return []


def half(answer):
    rows = answer.partials.shape[0] // 2
    if rows == 0:
        return []
    answer.partials.data = answer.partials.data[: len(answer.partials.data) * rows // answer.partials.shape[0]]
    answer.partials.shape[0] = rows
    return [answer]


def other_batch(answer):
    answer.batch_id += 1_000_000
    return [answer]


def unreadable(turns):
    """One in so many answers does not fit what was asked."""
    count = 0

    def spoil(answer):
        nonlocal count
        count += 1
        if count % turns == 0:
            answer.first_row += 7
        return [answer]

    return spoil


class BadNode:
    """Use as a context manager. `spoil(answer)` gives the answers to send for one; None: as they come.

    delay: seconds that every answer is late. describe(description): changes what the node says it holds.
    """

    def __init__(self, node):
        self._upstream = grpc.insecure_channel(node.address)
        # Each stream of a router takes one thread for as long as it lasts.
        self._server = grpc.server(concurrent.futures.ThreadPoolExecutor(64))
        self._server.add_generic_rpc_handlers((self,))
        self.address = f"{HOST}:{self._server.add_insecure_port(f'{HOST}:0')}"
        self.spoil, self.delay, self.describe = None, 0.0, None

    def service(self, details):
        handlers = {COMPUTE: self._compute, WATCH: self._watch}
        handler = handlers.get(details.method)
        return handler and grpc.stream_stream_rpc_method_handler(handler)

    def _call(self, method, requests):
        return self._upstream.stream_stream(method)(requests, timeout=PATIENCE)

    def _watch(self, requests, _context):
        for answer in self._call(WATCH, requests):
            status = Status.FromString(answer)
            if self.describe is not None and status.HasField("description"):
                self.describe(status.description)
            yield status.SerializeToString()

    def _compute(self, requests, context):
        out = queue.SimpleQueue()
        answers = self._call(COMPUTE, requests)
        # The router counts the stream as open when it has the headers.
        context.send_initial_metadata(())
        context.add_callback(lambda: out.put(None))
        threading.Thread(target=self._pump, args=(answers, out), daemon=True).start()
        while (answer := out.get()) is not None:
            yield answer

    def _pump(self, answers, out):
        try:
            for answer in answers:
                spoiled = [answer]
                if self.spoil is not None:
                    spoiled = [
                        made.SerializeToString() for made in self.spoil(Response.FromString(answer))
                    ]
                for one in spoiled:
                    if self.delay:
                        threading.Timer(self.delay, out.put, (one,)).start()
                    else:
                        out.put(one)
        except grpc.RpcError:
            pass  # The router has gone, or the node.
        finally:
            out.put(None)

    def heal(self):
        self.spoil, self.delay, self.describe = None, 0.0, None

    def __enter__(self):
        self._server.start()
        return self

    def __exit__(self, *exception):
        self._server.stop(None).wait(PATIENCE)
        self._upstream.close()
