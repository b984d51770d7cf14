import assert from "node:assert/strict";
import { test } from "node:test";
import { colour, layerScale, moveCursor, position, ratioToBalanced } from "../../router_service/console/page/heat_scale.js";

test("the scale is relative to the balanced load of the layer", () => {
  const scale = layerScale(["10", "0", "30", "0"]);
  assert.deepEqual(scale, { sum: 40, balanced: 10 });
  assert.equal(ratioToBalanced("30", scale), 3);
  assert.equal(ratioToBalanced("0", layerScale(["0", "0"])), 0);
});

test("a doubling is a step, four times is the end, nothing at all is off the scale", () => {
  assert.equal(position(1), 0);
  assert.equal(position(2), 0.5);
  assert.equal(position(0.5), -0.5);
  assert.equal(position(100), 1);
  assert.equal(position(0.001), -1);
  assert.equal(position(0), undefined);
});

for (const theme of ["light", "dark"]) {
  test(`steps of the ${theme} scale can be told apart`, () => {
    const colours = [0, 0.25, 0.5, 1, 2, 4].map((ratio) => colour(ratio, theme));
    for (let i = 1; i < colours.length; ++i) {
      const apart = colours[i].reduce((sum, value, part) => sum + Math.abs(value - colours[i - 1][part]), 0);
      assert.ok(apart > 60, `${theme} ${i}: ${colours[i - 1]} and ${colours[i]}`);
    }
  });
}

test("the cursor stays on the map", () => {
  const at = { row: 0, column: 5 };
  assert.deepEqual(moveCursor(at, "ArrowUp", 4, 32), { row: 0, column: 5 });
  assert.deepEqual(moveCursor(at, "ArrowDown", 4, 32), { row: 1, column: 5 });
  assert.deepEqual(moveCursor(at, "End", 4, 32), { row: 0, column: 31 });
  assert.deepEqual(moveCursor(at, "PageDown", 4, 16), { row: 0, column: 15 });
  assert.equal(moveCursor(at, "Tab", 4, 32), undefined);
});
