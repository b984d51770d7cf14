import assert from "node:assert/strict";
import { test } from "node:test";
import { findings } from "../../router_service/console/page/findings.js";
import { judgeNodes } from "../../router_service/console/page/node_speed.js";

const UP = { address: "h:1", link: "NODE_LINK_UP", description: { node_id: "node1" } };
const calls = (p50) => ({ call: { p50, p99: p50, count: 100 } });

test("a mesh that is well has none", () => {
  const balance = { summary: { alive: true }, layers: [{ layer: 0, measures: { collapse: "" } }] };
  const rates = { failed: 0, requests: 10, retries: 0 };
  assert.deepEqual(findings({ topology: { nodes: [UP] }, balance, verdicts: new Map(), rates }), []);
  assert.deepEqual(findings({}), []);
});

test("what is missing, and which node is down, why", () => {
  const down = { ...UP, link: "NODE_LINK_DOWN", reason: "connection refused" };
  const missing = [{ layer: 3, experts: [4, 5, 6] }];
  const texts = findings({ topology: { nodes: [down], missing } }).map((each) => each.text);
  assert.deepEqual(texts, ["Layer 3: no ready node holds experts 4-6.", "node1 is down: connection refused"]);
});

test("a slow node is said first, with its ratio and a link to it", () => {
  const topology = { nodes: [UP, { ...UP, address: "h:2", description: { node_id: "node2" } }], lookup_error: "no such host" };
  const verdicts = judgeNodes(new Map([["h:1", calls(0.001)], ["h:2", calls(0.04)]]));
  const [first, second] = findings({ topology, verdicts });
  assert.match(first.text, /^node2 is slow: .*40\.0 ms.*1\.00 ms.*40×/);
  assert.deepEqual([first.level, first.page, first.query], ["bad", "nodes", { node: "h:2" }]);
  assert.match(second.text, /no such host/);
});

test("balancing that is dead, experts that are, and requests that fail", () => {
  const layer = (index) => ({ layer: index, measures: { collapse: "dead: experts 0-2" } });
  const balance = { summary: { alive: false, reason: "no tick for 9 s" }, layers: [layer(1), layer(2), layer(5)] };
  const texts = findings({ balance, rates: { failed: 1, requests: 4, retries: 2 } }).map((each) => each.text);
  assert.equal(texts.length, 4);
  assert.match(texts.join("\n"), /1\.00 requests a second fail \(25 %\)/);
  assert.match(texts.join("\n"), /no tick for 9 s/);
  assert.match(texts.join("\n"), /Layers 1-2, 5 have experts/);
  assert.match(texts.join("\n"), /2\.00 parts of batches/);
});
