// An OTLP/JSON TracesData as a plain list of spans. Times are nanoseconds since the first span's start: those of
// the calendar have more digits than a number of JavaScript.

const KINDS = ["", "internal", "server", "client", "producer", "consumer"];

function attributeValue(value) {
  if (!value) return "";
  if ("stringValue" in value) return value.stringValue;
  if ("arrayValue" in value) return (value.arrayValue.values ?? []).map(attributeValue).join(", ");
  if ("kvlistValue" in value) {
    return (value.kvlistValue.values ?? []).map((each) => `${each.key}=${attributeValue(each.value)}`).join(", ");
  }
  return String(Object.values(value)[0] ?? "");
}

function attributesOf(list) {
  return Object.fromEntries((list ?? []).map(({ key, value }) => [key, attributeValue(value)]));
}

export function spansOf(tracesData) {
  const found = [];
  for (const { resource, scopeSpans } of tracesData.resourceSpans ?? []) {
    const process = attributesOf(resource?.attributes);
    for (const span of (scopeSpans ?? []).flatMap((scope) => scope.spans ?? [])) {
      found.push({ span, process });
    }
  }
  const first = found.reduce((least, { span }) => {
    const start = BigInt(span.startTimeUnixNano);
    return least === undefined || start < least ? start : least;
  }, undefined);
  return { firstUnixNano: first ?? 0n, spans: found.map((each) => plainSpan(each, first)) };
}

function plainSpan({ span, process }, first) {
  const offset = (time) => Number(BigInt(time) - first);
  return {
    traceId: span.traceId,
    id: span.spanId,
    parentId: span.parentSpanId ?? "",
    name: span.name,
    kind: KINDS[span.kind] ?? "",
    service: process["service.name"] ?? "unknown",
    process,
    start: offset(span.startTimeUnixNano),
    end: offset(span.endTimeUnixNano),
    failed: span.status?.code === 2,
    message: span.status?.message ?? "",
    attributes: attributesOf(span.attributes),
    events: (span.events ?? []).map((event) => ({
      name: event.name,
      at: offset(event.timeUnixNano),
      attributes: attributesOf(event.attributes),
    })),
    links: (span.links ?? []).map((link) => ({
      traceId: link.traceId,
      spanId: link.spanId,
      attributes: attributesOf(link.attributes),
    })),
    droppedLinks: Number(span.droppedLinksCount ?? 0),
  };
}

// "expertmesh.internal.v1.Expert/Compute" as "Expert/Compute".
export function shortName(name) {
  return name.replace(/^expertmesh\.(internal\.)?(v\d+\.)?/, "");
}

// A call of a node as the router sees it.
export function isNodeCall(span) {
  return span.kind === "client" && span.attributes["expertmesh.node"] !== undefined;
}

// The span of a batch whose calls are not among `spans`: they were made once, for all its requests, and are in the
// trace of one of them.
export function withoutCalls(spans) {
  return spans.find(
    (span) =>
      Number(span.attributes["expertmesh.calls"] ?? 0) > 0 &&
      !spans.some((call) => isNodeCall(call) && sameBatch(call, span)),
  );
}

function sameBatch(span, other) {
  return span.attributes["expertmesh.batch.id"] === other.attributes["expertmesh.batch.id"];
}

// Adds the calls that are in `other` (as spansOf gives it) to `trace`, below `holder`.
export function adoptCalls(trace, holder, other) {
  const shift = Number(other.firstUnixNano - trace.firstUnixNano);
  const adopted = [];
  const take = (span, parentId) => {
    adopted.push({ ...span, parentId, start: span.start + shift, end: span.end + shift, shared: true });
    other.spans.filter((child) => child.parentId === span.id).forEach((child) => take(child, span.id));
  };
  other.spans
    .filter((span) => isNodeCall(span) && sameBatch(span, holder))
    .forEach((call) => take(call, holder.id));
  return { ...trace, spans: [...trace.spans, ...adopted] };
}
