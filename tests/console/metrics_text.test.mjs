import assert from "node:assert/strict";
import { test } from "node:test";
import { histograms, parseMetrics, total } from "../../router_service/console/page/metrics_text.js";

const TEXT = `# HELP a_total Things
# TYPE a_total counter
a_total{code="OK"} 7
a_total{code="a \\"quoted\\" } and \\\\ one"} 2
b_seconds_bucket{stage="route",le="0.1"} 3
b_seconds_bucket{stage="route",le="+Inf"} 4
b_seconds_sum{stage="route"} 1.5
b_seconds_count{stage="route"} 4
plain 1e-05 1700000000000
broken{x="y" 3
`;

test("samples are found by name, with labels as they were before escaping", () => {
  const samples = parseMetrics(TEXT);
  assert.deepEqual(samples.get("a_total"), [
    { labels: { code: "OK" }, value: 7 },
    { labels: { code: 'a "quoted" } and \\ one' }, value: 2 },
  ]);
  assert.deepEqual(samples.get("plain"), [{ labels: {}, value: 1e-5 }]);
  assert.equal(samples.has("broken"), false);
});

test("only wanted names are kept", () => {
  assert.deepEqual([...parseMetrics(TEXT, (name) => name === "plain").keys()], ["plain"]);
});

test("a sum counts the samples that match, and is undefined where there is none", () => {
  const samples = parseMetrics(TEXT);
  assert.equal(total(samples, "a_total"), 9);
  assert.equal(total(samples, "a_total", (labels) => labels.code === "OK"), 7);
  assert.equal(total(samples, "a_total", (labels) => labels.code === "NONE"), undefined);
  assert.equal(total(samples, "missing"), undefined);
});

test("a histogram has its bounds, cumulative counts, sum and count", () => {
  assert.deepEqual(histograms(parseMetrics(TEXT), "b_seconds", "stage").get("route"), {
    le: [0.1, Infinity],
    counts: [3, 4],
    sum: 1.5,
    count: 4,
  });
});
