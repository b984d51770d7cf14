import assert from "node:assert/strict";
import { test } from "node:test";
import { difference, increase, mean, quantile } from "../../router_service/console/page/quantiles.js";

const histogram = (counts, sum = 0) => ({ le: [1, 2, 4, Infinity], counts, sum, count: counts[counts.length - 1] });

test("a quantile lies linearly within its bucket", () => {
  assert.equal(quantile(histogram([0, 10, 10, 10]), 0.5), 1.5);
  assert.equal(quantile(histogram([4, 4, 8, 8]), 0.25), 0.5);
  assert.equal(quantile(histogram([4, 4, 8, 8]), 1), 4);
});

test("what is beyond the last bound counts as that bound", () => {
  assert.equal(quantile(histogram([0, 0, 0, 5]), 0.99), 4);
});

test("of nothing there is no quantile and no mean", () => {
  assert.equal(quantile(histogram([0, 0, 0, 0]), 0.5), undefined);
  assert.equal(quantile(undefined, 0.5), undefined);
  assert.equal(mean(histogram([0, 0, 0, 0])), undefined);
});

test("between two reads only what came counts", () => {
  const late = difference(histogram([100, 100, 100, 100], 50), histogram([100, 110, 110, 110], 65));
  assert.deepEqual(late.counts, [0, 10, 10, 10]);
  assert.equal(quantile(late, 0.5), 1.5);
  assert.equal(mean(late), 1.5);
});

test("after a restart all that there is is new", () => {
  assert.deepEqual(difference(histogram([9, 9, 9, 9]), histogram([1, 1, 1, 1])).counts, [1, 1, 1, 1]);
  assert.equal(increase(9, 4), 4);
  assert.equal(increase(4, 9), 5);
  assert.equal(increase(undefined, 3), 3);
  assert.equal(increase(3, undefined), undefined);
});
