import assert from "node:assert/strict";
import { test } from "node:test";
import { computePerAssignment, judgeNodes } from "../../router_service/console/page/node_speed.js";

const calls = (p50, p99, count = 1000) => ({ p50, p99, count });
const judge = (figures) => judgeNodes(new Map(Object.entries(figures)));

test("a node whose usual call takes much longer than the others' is slow", () => {
  const verdicts = judge({ a: { call: calls(0.001, 0.01) }, b: { call: calls(0.0012, 0.01) }, c: { call: calls(0.04, 0.05) } });
  assert.equal(verdicts.get("c").level, "slow");
  assert.ok(Math.abs(verdicts.get("c").call.ratio - 0.04 / 0.0011) < 1e-9);
  assert.equal(verdicts.get("a").level, "");
});

test("one that is slow now and then is late at times, when there were calls enough to say so", () => {
  const others = { a: { call: calls(0.001, 0.002) }, b: { call: calls(0.001, 0.002) } };
  assert.equal(judge({ ...others, c: { call: calls(0.001, 0.05) } }).get("c").level, "late");
  assert.equal(judge({ ...others, c: { call: calls(0.001, 0.05, 20) } }).get("c").level, "");
});

test("few calls, calls below a millisecond, and a node alone say nothing", () => {
  const other = { call: calls(0.0001, 0.0001) };
  assert.equal(judge({ a: other, b: { call: calls(0.5, 0.5, 2) } }).get("b").level, "");
  assert.equal(judge({ a: other, b: { call: calls(0.0009, 0.0009) } }).get("b").level, "");
  assert.equal(judge({ b: { call: calls(0.5, 0.5) } }).get("b").level, "");
  assert.equal(judge({ a: { call: undefined }, b: { call: undefined } }).get("b").level, "");
});

test("computing slowly is told from being reached slowly", () => {
  const figures = (perAssignment) => ({ a: { call: calls(0.001, 0.002), perAssignment: 1 }, b: { call: calls(0.04, 0.05), perAssignment } });
  assert.equal(judge(figures(9)).get("b").computesSlowly, true);
  assert.equal(judge(figures(1.1)).get("b").computesSlowly, false);
});

test("time per assignment is of what came between two reads", () => {
  const read = (assignments, us) => ({ computed_assignments: String(assignments), compute_us: String(us) });
  assert.equal(computePerAssignment(read(100, 1000), read(300, 1400)), 2);
  assert.equal(computePerAssignment(read(100, 1000), read(100, 1000)), undefined);
  assert.equal(computePerAssignment(read(100, 1000), read(10, 30)), 3);
});
