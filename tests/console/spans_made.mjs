// Traces as a router writes them, for the tests: times in microseconds after a moment of 2026.
const START = 1_796_059_974_108_175_115n;

const nanos = (us) => String(START + BigInt(Math.round(us * 1000)));

function attribute([key, value]) {
  if (typeof value === "number") return { key, value: { intValue: String(value) } };
  return { key, value: typeof value === "boolean" ? { boolValue: value } : { stringValue: value } };
}

export function span(traceId, spanId, parentSpanId, name, kind, start, end, attributes = {}, more = {}) {
  return {
    traceId,
    spanId,
    parentSpanId,
    name,
    kind,
    startTimeUnixNano: nanos(start),
    endTimeUnixNano: nanos(end),
    attributes: Object.entries(attributes).map(attribute),
    events: [],
    links: [],
    droppedLinksCount: 0,
    status: {},
    ...more,
  };
}

export function traceOf(...groups) {
  return {
    resourceSpans: groups.map(([service, spans, process = {}]) => ({
      resource: { attributes: Object.entries({ "service.name": service, ...process }).map(attribute) },
      scopeSpans: [{ scope: { name: "expertmesh" }, spans }],
    })),
  };
}

const COMPUTE = "expertmesh.internal.v1.Expert/Compute";

// A request of 100 ms: 20 in the queue, then calls of a (10) and of slow (75, of which it computes 5), 2 to combine.
export function slowRequest({ trace = "t".repeat(32), batch = trace, calls = true } = {}) {
  const facts = { "expertmesh.batch.id": batch, "expertmesh.calls": 2, "expertmesh.batch.requests": batch === trace ? 1 : 2,
    "expertmesh.layer": 3, "expertmesh.queue_us": 20_000, "expertmesh.route_us": 1000, "expertmesh.combine_us": 2000 };
  const dispatch = { links: batch === trace ? [] : [{ traceId: batch, spanId: "b1", attributes: [] }] };
  const router = [
    span(trace, "r1", "", "expertmesh.v1.Router/Forward", 2, 0, 100_000, { "expertmesh.tokens": 64, "expertmesh.layer": 3 }),
    span(trace, "d1", "r1", "expertmesh.dispatch", 1, 20_000, 98_000, facts, dispatch),
  ];
  if (!calls) return traceOf(["expertmesh-router", router]);
  const call = (id, node, start, end) =>
    span(trace, id, "d1", COMPUTE, 3, start, end, { "expertmesh.node": node, "expertmesh.batch.id": batch });
  router.push(call("c1", "a", 22_000, 32_000), call("c2", "slow", 22_000, 97_000));
  const slow = [
    span(trace, "n2", "c2", COMPUTE, 2, 56_000, 63_000),
    span(trace, "q2", "n2", "expertmesh.node.queue", 1, 56_000, 58_000),
    span(trace, "w2", "n2", "expertmesh.node.compute", 1, 58_000, 63_000),
  ];
  return traceOf(["expertmesh-router", router], ["expertmesh-expert", slow, { "expertmesh.node": "slow" }]);
}
