import assert from "node:assert/strict";
import { test } from "node:test";
import { awaitedCall, partsOf, requestsOf, subject } from "../../router_service/console/page/cause.js";
import { explain } from "../../router_service/console/page/explanation.js";
import { aheadInQueue } from "../../router_service/console/page/queue_ahead.js";
import { adoptCalls, spansOf, withoutCalls } from "../../router_service/console/page/spans.js";
import { layout } from "../../router_service/console/page/waterfall.js";
import { slowRequest, span, traceOf } from "./spans_made.mjs";

const BATCH = "b".repeat(32);
const rowsOf = (data) => subject(layout(spansOf(data).spans).rows);

test("the slow node has its share of the request, the other call none", () => {
  const parts = partsOf(rowsOf(slowRequest()));
  assert.deepEqual(parts.map((part) => [part.what, part.node, part.time]), [
    ["node", "slow", 75e6],
    ["queue", "", 20e6],
    ["router", "", 2e6],
    ["combine", "", 2e6],
    ["route", "", 1e6],
  ]);
  assert.equal(parts[0].share, 0.75);
});

test("the call that was waited for is compared with the next, and with what the node says", () => {
  const call = awaitedCall(rowsOf(slowRequest()));
  assert.equal(call.node, "slow");
  assert.equal(call.standsOut, true);
  assert.deepEqual([call.time, call.next, call.queue, call.compute, call.away], [75e6, 10e6, 2e6, 5e6, 68e6]);
});

test("the cause is said in words, the weightiest first", () => {
  const [main, next] = explain(rowsOf(slowRequest()));
  assert.equal(main.node, "slow");
  assert.match(main.text, /75\.0 ms, 75 % of the time, 7\.5× as long as the next slowest call/);
  assert.match(main.text, /computed in 5\.00 ms; the other 68\.0 ms passed on the way/);
  assert.match(next.text, /20\.0 ms, 20 % .* queue/);
});

test("a request whose calls are in another trace takes them from there", () => {
  const alone = spansOf(slowRequest({ trace: "1".repeat(32), batch: BATCH, calls: false }));
  const other = spansOf(slowRequest({ trace: "2".repeat(32), batch: BATCH }));
  const lacking = withoutCalls(alone.spans);
  assert.equal(lacking.name, "expertmesh.dispatch");
  const rows = subject(layout(adoptCalls(alone, lacking, other).spans).rows);
  assert.equal(awaitedCall(rows).node, "slow");
  assert.deepEqual(rows.filter((row) => row.span.shared).map((row) => row.span.id), ["c2", "n2", "q2", "w2", "c1"]);
  assert.equal(withoutCalls(other.spans), undefined);
});

test("calls of another batch are not adopted", () => {
  const alone = spansOf(slowRequest({ trace: "1".repeat(32), batch: BATCH, calls: false }));
  const other = spansOf(slowRequest({ trace: "2".repeat(32), batch: "c".repeat(32) }));
  assert.equal(adoptCalls(alone, withoutCalls(alone.spans), other).spans.length, 2);
});

test("times of another trace are moved to this one's beginning", () => {
  const early = spansOf(traceOf(["x", [span("a", "1", "", "first", 1, 0, 10)]]));
  const late = spansOf(traceOf(["x", [span("b", "2", "", "call", 3, 500, 700, { "expertmesh.node": "n", "expertmesh.batch.id": "B" })]]));
  const whole = adoptCalls(early, { id: "1", attributes: { "expertmesh.batch.id": "B" } }, late);
  assert.deepEqual([whole.spans[1].start, whole.spans[1].end], [500_000, 700_000]);
});

test("of a trace with many requests it is about the longest, or about the one that was chosen", () => {
  const rows = layout(
    spansOf(traceOf(["r", [span("t", "a", "client", "one", 2, 0, 10), span("t", "b", "client", "two", 2, 20, 90), span("t", "c", "a", "in", 1, 1, 2)]])).spans,
  ).rows;
  assert.deepEqual(requestsOf(rows).map((request) => request.map((row) => row.span.id)), [["b"], ["a", "c"]]);
  assert.equal(subject(rows)[0].span.id, "b");
  assert.equal(subject(rows, "c")[0].span.id, "a");
  assert.equal(subject(rows, "gone")[0].span.id, "b");
});

test("a failed call says why", () => {
  const data = slowRequest();
  const call = data.resourceSpans[0].scopeSpans[0].spans[3];
  call.status = { code: 2, message: "no answer" };
  data.resourceSpans.pop();
  assert.match(explain(rowsOf(data))[0].text, /The call failed: no answer/);
});

test("what was ahead in the queue is of the same layer and ended while this one waited", () => {
  const data = slowRequest();
  const { firstUnixNano } = spansOf(data);
  const at = (start, us, more = {}) => ({ trace_id: `${start}-${us}`, layer: 3, name: "x", start_unix_nano: String(firstUnixNano + BigInt(start) * 1000n), duration_us: String(us), ...more });
  const traces = [
    at(-50_000, 69_000),
    at(-90_000, 80_000),
    at(-50_000, 69_001, { layer: 2 }),
    at(1000, 98_000),
    at(-50_000, 72_000),
    at(-5000, 20_000, { trace_id: "t".repeat(32) }),
  ];
  assert.deepEqual(aheadInQueue(traces, firstUnixNano, rowsOf(data)).map((trace) => trace.trace_id), ["-50000-72000", "-50000-69000"]);
});
