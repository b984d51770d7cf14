import assert from "node:assert/strict";
import { test } from "node:test";
import { History } from "../../router_service/console/page/history.js";

// `slow` of `calls` calls of node n took between 10 and 20 ms, the others up to 1 ms.
const page = ({ tokens, calls = 0, slow = 0, failed = 0 }) => `
expertmesh_router_tokens_total ${tokens}
expertmesh_router_requests_total{code="OK"} ${calls}
expertmesh_router_requests_total{code="UNAVAILABLE"} ${failed}
expertmesh_router_tokens_in_flight 3
expertmesh_router_node_call_duration_seconds_bucket{node="n",le="0.001"} ${calls - slow}
expertmesh_router_node_call_duration_seconds_bucket{node="n",le="0.01"} ${calls - slow}
expertmesh_router_node_call_duration_seconds_bucket{node="n",le="0.02"} ${calls}
expertmesh_router_node_call_duration_seconds_bucket{node="n",le="+Inf"} ${calls}
expertmesh_router_node_call_duration_seconds_sum{node="n"} 0
expertmesh_router_node_call_duration_seconds_count{node="n"} ${calls}
`;

test("one read says nothing of rates, two say the difference by the time between", () => {
  const history = new History();
  history.add(1000, page({ tokens: 100 }));
  assert.equal(history.rate("tokens", 60_000), undefined);
  history.add(3000, page({ tokens: 500 }));
  assert.equal(history.rate("tokens", 60_000), 200);
  assert.equal(history.last.tokensInFlight, 3);
});

test("a rate is of the time that was asked for", () => {
  const history = new History();
  for (const [at, tokens] of [[0, 0], [10_000, 1000], [12_000, 1002]]) history.add(at, page({ tokens }));
  assert.equal(history.rate("tokens", 5000), 1);
  assert.equal(history.rate("failed", 5000), 0);
});

test("latency of a node is of late, not of all time", () => {
  const history = new History();
  history.add(0, page({ tokens: 0, calls: 1000 }));
  history.add(2000, page({ tokens: 0, calls: 1010, slow: 10 }));
  const late = history.latency("calls", "n", 60_000);
  assert.equal(late.count, 10);
  assert.equal(late.perSecond, 5);
  assert.ok(late.p50 > 0.01 && late.p99 <= 0.02, JSON.stringify(late));
  assert.equal(history.latency("calls", "unknown", 60_000), undefined);
});

test("the longest of the newest sampled is the exemplar", () => {
  const history = new History();
  const bucket = (le, trace, value, at) =>
    `expertmesh_router_node_call_duration_seconds_bucket{node="n",le="${le}"} 1 # {trace_id="${trace}"} ${value} ${at}\n`;
  assert.equal(history.exemplar("calls", "n", 60_000), undefined);
  history.add(0, bucket(0.01, "short", 0.004, 995) + bucket(0.1, "long", 0.09, 990) + bucket(1, "longer but old", 0.9, 100));
  assert.equal(history.exemplar("calls", "n", 60_000).traceId, "long");
  assert.equal(history.exemplar("calls", "n", 1_000_000).traceId, "longer but old");
  assert.equal(history.exemplar("calls", "other", 60_000), undefined);
});

test("what is old is forgotten, and reads close together count as one", () => {
  const history = new History(10_000, 900);
  for (let at = 0; at <= 60_000; at += 1000) history.add(at, page({ tokens: at }));
  assert.ok(history.reads.length <= 12, `${history.reads.length}`);
  history.add(60_100, page({ tokens: 60_100 }));
  assert.deepEqual(history.reads.slice(-2).map((read) => read.counters.tokens), [59_000, 60_100]);
});

test("a trend has a point for each pair of neighbours, and gaps where nothing was seen", () => {
  const history = new History();
  for (const [at, calls] of [[0, 0], [2000, 4], [4000, 4]]) history.add(at, page({ tokens: calls, calls }));
  assert.deepEqual(history.rateTrend("tokens", 60_000), [
    { at: 2000, value: 2 },
    { at: 4000, value: 0 },
  ]);
  assert.deepEqual(
    history.quantileTrend("calls", "n", 0.5, 60_000).map((point) => point.value === undefined),
    [false, true],
  );
});
