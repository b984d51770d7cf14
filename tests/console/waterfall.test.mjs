import assert from "node:assert/strict";
import { test } from "node:test";
import { layout, moveRow, ticks } from "../../router_service/console/page/waterfall.js";

const span = (id, parentId, start, end) => ({ id, parentId, start, end });

test("rows follow the tree, children by their start", () => {
  const { rows } = layout([span("c", "a", 50, 60), span("b", "a", 10, 40), span("d", "b", 20, 30), span("a", "caller", 0, 100)]);
  assert.deepEqual(rows.map((row) => [row.span.id, row.depth]), [["a", 0], ["b", 1], ["d", 2], ["c", 1]]);
});

test("the slowest path goes through what ended last, and its times add up to the root's", () => {
  const { rows } = layout([span("a", "", 0, 100), span("short", "a", 10, 30), span("long", "a", 10, 90), span("in", "long", 20, 80)]);
  const path = Object.fromEntries(rows.map((row) => [row.span.id, row.onPath ? row.waited : undefined]));
  assert.deepEqual(path, { a: 20, long: 20, in: 60, short: undefined });
  assert.equal(rows.reduce((sum, row) => sum + row.waited, 0), 100);
});

test("what was waited for one after the other is all on the path", () => {
  const { rows } = layout([span("a", "", 0, 100), span("first", "a", 0, 40), span("second", "a", 40, 100)]);
  assert.deepEqual(rows.filter((row) => row.onPath).map((row) => row.span.id), ["a", "first", "second"]);
});

test("a child that ends after its parent is counted to the parent's end only", () => {
  const { rows } = layout([span("a", "", 0, 100), span("late", "a", 60, 160)]);
  assert.deepEqual(rows.map((row) => row.waited), [60, 40]);
});

test("several requests of one trace are several roots", () => {
  const { rows } = layout([span("a", "client", 0, 10), span("b", "client", 20, 30)]);
  assert.deepEqual(rows.map((row) => [row.depth, row.onPath]), [[0, true], [0, true]]);
});

test("a span that names itself as parent is a root, and ends nothing", () => {
  assert.equal(layout([span("a", "a", 0, 10)]).rows.length, 1);
});

test("ticks are round and within the axis", () => {
  assert.deepEqual(ticks(100, 4), [0, 50, 100]);
  assert.deepEqual(ticks(73.1e6, 4), [0, 20e6, 40e6, 60e6]);
  assert.deepEqual(ticks(0), [0]);
});

test("arrows move by rows and stop at the ends", () => {
  assert.equal(moveRow(0, "ArrowUp", 5), 0);
  assert.equal(moveRow(3, "ArrowDown", 5), 4);
  assert.equal(moveRow(2, "End", 5), 4);
  assert.equal(moveRow(2, "a", 5), undefined);
});
