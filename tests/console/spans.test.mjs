import assert from "node:assert/strict";
import { test } from "node:test";
import { shortName, spansOf } from "../../router_service/console/page/spans.js";
import { slowRequest, span, traceOf } from "./spans_made.mjs";

test("spans keep nanoseconds, the process and its attributes", () => {
  const { spans, firstUnixNano } = spansOf(slowRequest());
  assert.equal(firstUnixNano, 1_796_059_974_108_175_115n);
  const compute = spans.find((each) => each.id === "w2");
  assert.deepEqual([compute.start, compute.end], [58_000_000, 63_000_000]);
  assert.equal(compute.service, "expertmesh-expert");
  assert.equal(compute.process["expertmesh.node"], "slow");
  assert.equal(spans.find((each) => each.id === "d1").attributes["expertmesh.calls"], "2");
});

test("every kind of attribute becomes a text", () => {
  const values = [
    [{ boolValue: false }, "false"],
    [{ doubleValue: 0.5 }, "0.5"],
    [{ intValue: "7" }, "7"],
    [{ arrayValue: { values: [{ stringValue: "a" }, { intValue: "1" }] } }, "a, 1"],
    [{ kvlistValue: { values: [{ key: "k", value: { stringValue: "v" } }] } }, "k=v"],
    [{}, ""],
  ];
  const made = span("t", "s", "", "n", 1, 0, 1, {}, { attributes: values.map(([value], i) => ({ key: `k${i}`, value })) });
  const [{ attributes }] = spansOf(traceOf(["x", [made]])).spans;
  assert.deepEqual(Object.values(attributes), values.map(([, text]) => text));
});

test("links, events, status and what was dropped are read", () => {
  const more = {
    links: [{ traceId: "a", spanId: "b", attributes: [{ key: "expertmesh.tokens", value: { intValue: "9" } }] }],
    droppedLinksCount: 72,
    events: [{ name: "expertmesh.retry", timeUnixNano: "1796059974108176115", attributes: [] }],
    status: { code: 2, message: "lost" },
  };
  const [read] = spansOf(traceOf(["x", [span("t", "s", "", "n", 1, 0, 1, {}, more)]])).spans;
  assert.deepEqual(read.links, [{ traceId: "a", spanId: "b", attributes: { "expertmesh.tokens": "9" } }]);
  assert.equal(read.droppedLinks, 72);
  assert.deepEqual(read.events, [{ name: "expertmesh.retry", at: 1000, attributes: {} }]);
  assert.deepEqual([read.failed, read.message], [true, "lost"]);
});

test("a trace without spans is none, and not an error", () => {
  assert.deepEqual(spansOf({}), { firstUnixNano: 0n, spans: [] });
});

test("names lose what is the same in all", () => {
  assert.equal(shortName("expertmesh.internal.v1.Expert/Compute"), "Expert/Compute");
  assert.equal(shortName("expertmesh.v1.Router/Forward"), "Router/Forward");
  assert.equal(shortName("expertmesh.node.queue"), "node.queue");
  assert.equal(shortName("GET /x"), "GET /x");
});
