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
    { labels: { code: "OK" }, value: 7, exemplar: undefined },
    { labels: { code: 'a "quoted" } and \\ one' }, value: 2, exemplar: undefined },
  ]);
  assert.deepEqual(samples.get("plain"), [{ labels: {}, value: 1e-5, exemplar: undefined }]);
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
    exemplars: [],
  });
});

test("an exemplar says which trace, how long and when", () => {
  const line = (rest) => parseMetrics(`c_seconds_bucket{le="0.05"} 3${rest}\n`);
  const [{ value, exemplar }] = line(' # {trace_id="0af7",span_id="b7"} 0.0412 1796059974.125').get("c_seconds_bucket");
  assert.equal(value, 3);
  assert.deepEqual(exemplar, { traceId: "0af7", value: 0.0412, at: 1_796_059_974_125 });
  assert.equal(line(' # {other="0af7"} 0.04 1').get("c_seconds_bucket")[0].exemplar, undefined);
  const found = histograms(line(' # {trace_id="0af7"} 0.04 1'), "c_seconds").get("");
  assert.deepEqual(found.exemplars, [{ traceId: "0af7", value: 0.04, at: 1000 }]);
});
