// What a request waited for in the queue: other kept traces of its layer that were answered meanwhile.

const SHOWN = 5;

// `first`: when the trace began, in nanoseconds since 1970; `rows`: the request's. A request that left the queue
// with this one ends together with it; one ahead ends nearer to where this one left the queue.
export function aheadInQueue(traces, first, rows) {
  const dispatch = rows.find((row) => row.span.attributes["expertmesh.calls"] !== undefined);
  if (!dispatch || dispatch === rows[0]) return [];
  const root = rows[0].span;
  const latest = dispatch.span.start + (root.end - dispatch.span.start) / 2;
  const ended = (trace) => Number(BigInt(trace.start_unix_nano) - first) + Number(trace.duration_us) * 1000;
  return traces
    .filter((trace) => String(trace.layer) === dispatch.span.attributes["expertmesh.layer"])
    .filter((trace) => trace.trace_id !== root.traceId && trace.trace_id !== dispatch.span.attributes["expertmesh.batch.id"])
    .filter((trace) => ended(trace) > root.start && ended(trace) <= latest)
    .sort((a, b) => Number(b.duration_us) - Number(a.duration_us))
    .slice(0, SHOWN);
}
