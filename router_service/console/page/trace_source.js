// One trace with what belongs to it: calls that its batch shares with other requests are in the trace of one of
// them, which the trace of the batch names.
import { subject } from "./cause.js";
import { adoptCalls, spansOf, withoutCalls } from "./spans.js";
import { layout } from "./waterfall.js";

const CALLS_IN = "expertmesh.batch.calls_trace_id";

function source(name, traceId) {
  return { name, path: `api/v1/traces/${traceId}`, everyMs: Infinity, accept: (body) => spansOf(JSON.parse(body)) };
}

function callsTrace(trace) {
  return trace?.spans.map((span) => span.attributes[CALLS_IN]).find(Boolean);
}

// What to read for the trace `id`, as far as it is known by now.
export function traceSources(app, id) {
  const wanted = [source("trace", id)];
  const { value } = app.data("trace");
  const lacking = value && value.spans.length && lackingSpan(value, app.route.query.span);
  if (!lacking) return wanted;
  const batchId = lacking.attributes["expertmesh.batch.id"];
  const batch = batchId === id ? value : app.data("batch").value;
  if (batchId !== id) wanted.push(source("batch", batchId));
  const calls = callsTrace(batch);
  if (calls && calls !== id) wanted.push(source("calls", calls));
  return wanted;
}

function lackingSpan(trace, spanId) {
  return withoutCalls(subject(layout(trace.spans).rows, spanId).map((row) => row.span));
}

// {layout, callsFrom, callsError}: the trace as rows. callsFrom: the trace that has the calls; callsError: why they
// cannot be shown.
export function wholeTrace(app) {
  const { value } = app.data("trace");
  const lacking = lackingSpan(value, app.route.query.span);
  if (!lacking) return { layout: layout(value.spans) };
  const calls = app.data("calls");
  const problem = app.data("batch").error || calls.error;
  if (!calls.value) return { layout: layout(value.spans), callsError: problem };
  const whole = adoptCalls(value, lacking, calls.value);
  return { layout: layout(whole.spans), callsFrom: calls.path.split("/").pop() };
}
