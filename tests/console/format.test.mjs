import assert from "node:assert/strict";
import { test } from "node:test";
import * as format from "../../router_service/console/page/format.js";

test("durations have three digits and a unit that fits", () => {
  const cases = [[0, "0"], [0.784, "784 ns"], [1.3, "1.3 µs"], [437, "437 µs"], [3420, "3.42 ms"], [38_500, "38.5 ms"],
    [230_400, "230 ms"], [1_240_000, "1.24 s"], [125e6, "2 min 5 s"], [7.5e9, "2 h 5 min"]];
  for (const [us, text] of cases) assert.equal(format.duration(us), text);
  assert.equal(format.duration(undefined), "-");
  assert.equal(format.seconds(0.0385), "38.5 ms");
});

test("counts are exact beyond what a number of JavaScript holds", () => {
  assert.equal(format.count("18446744073709551615"), "18,446,744,073,709,551,615");
  assert.equal(format.count(999), "999");
  assert.equal(format.count("4334"), "4,334");
  assert.equal(format.count(undefined), "-");
});

test("rates, shares, ratios and sizes", () => {
  assert.equal(format.rate(5684), "5.68k");
  assert.equal(format.rate(0), "0");
  assert.equal(format.rate(0.234), "0.23");
  assert.equal(format.rate(undefined), "-");
  assert.equal(format.percent(0.53), "53 %");
  assert.equal(format.percent(0.00001), "< 0.01 %");
  assert.equal(format.times(27.3), "27×");
  assert.equal(format.times(0.4), "0.40×");
  assert.equal(format.bytes("3145728"), "3.00 MiB");
});

test("indices are written as ranges, and not without end", () => {
  assert.equal(format.ranges([0, 1, 2, 5, 7, 8]), "0-2, 5, 7-8");
  assert.equal(format.ranges([]), "");
  assert.equal(format.ranges([0, 2, 4, 6], 2), "0, 2, and 2 more ranges");
});

test("names of enums, and times past", () => {
  assert.equal(format.enumName("NODE_LINK_EJECTED", "NODE_LINK_"), "ejected");
  assert.equal(format.enumName(undefined, "X_"), "");
  assert.equal(format.ago(undefined), "never");
  assert.equal(format.ago("400"), "just now");
  assert.equal(format.ago("12000"), "12.0 s ago");
});

test("nodes are sorted as people count, and called what they call themselves", () => {
  const nodes = [{ address: "b:2", description: { node_id: "node10" } }, { address: "a:1", description: { node_id: "node2" } }, { address: "c:3" }];
  assert.deepEqual(format.byName(nodes).map(format.nodeName), ["c:3", "node2", "node10"]);
});
