// One trace with what belongs to it: calls that its batch shares with other requests are in the trace of one of
// them, which the trace of the batch names.
import { partsOf, subject } from "./cause.js";
import { adoptCalls, spansOf, withoutCalls } from "./spans.js";
import { layout } from "./waterfall.js";

const LEAST_QUEUE_SHARE = 0.15;
const CALLS_IN = "expertmesh.batch.calls_trace_id";

const pathOf = (traceId) => `api/v1/traces/${traceId}`;

function source(name, traceId) {
  return { name, path: pathOf(traceId), everyMs: Infinity, accept: (body) => spansOf(JSON.parse(body)) };
}

// Of traces as they were read: a long one takes its time.
const layouts = new WeakMap();

function layoutOf(trace) {
  if (!layouts.has(trace)) layouts.set(trace, layout(trace.spans));
  return layouts.get(trace);
}

// Long enough to ask what was ahead.
export function waitedInQueue(rows) {
  return partsOf(rows).some((part) => part.what === "queue" && part.share >= LEAST_QUEUE_SHARE);
}

// What was read of a trace, under whichever name; nothing of the one that was open before.
function read(app, traceId) {
  const found = ["trace", "batch", "calls"].map((name) => app.data(name)).find((each) => each.path === pathOf(traceId));
  return found ?? { value: undefined, error: "" };
}

function callsTrace(trace) {
  return trace?.spans.map((span) => span.attributes[CALLS_IN]).find(Boolean);
}

// What to read for the trace `id`, as far as it is known by now.
export function traceSources(app, id) {
  const wanted = [source("trace", id)];
  const { value } = app.data("trace");
  if (!value?.spans.length) return wanted;
  const rows = subject(layoutOf(value).rows, app.route.query.span);
  if (waitedInQueue(rows)) {
    wanted.push({ name: "around", path: "api/v1/traces?order=recent&limit=1000", everyMs: 5000 });
  }
  const lacking = withoutCalls(rows.map((row) => row.span));
  if (!lacking) return wanted;
  const batchId = lacking.attributes["expertmesh.batch.id"];
  if (batchId !== id) wanted.push(source("batch", batchId));
  const calls = callsTrace(read(app, batchId).value);
  if (calls && calls !== id) wanted.push(source("calls", calls));
  return wanted;
}

// {layout, callsFrom, callsError}: the trace as rows. callsFrom: the trace that has the calls; callsError: why they
// cannot be shown.
export function wholeTrace(app) {
  const { value } = app.data("trace");
  const alone = layoutOf(value);
  const lacking = withoutCalls(subject(alone.rows, app.route.query.span).map((row) => row.span));
  if (!lacking) return { layout: alone };
  const batch = read(app, lacking.attributes["expertmesh.batch.id"]);
  const callsFrom = callsTrace(batch.value);
  const calls = callsFrom ? read(app, callsFrom) : batch;
  if (!callsFrom || !calls.value) return { layout: alone, callsError: calls.error };
  return { layout: layout(adoptCalls(value, lacking, calls.value).spans), callsFrom };
}
