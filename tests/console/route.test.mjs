import assert from "node:assert/strict";
import { test } from "node:test";
import { href, parseRoute } from "../../router_service/console/page/route.js";
import { loadPath } from "../../router_service/console/page/view_experts.js";
import { matches, traceIdIn } from "../../router_service/console/page/view_traces.js";

test("an address says page, id and query, and is written back the same", () => {
  const hash = "#/traces/4f1a?span=e04a&x=a+b";
  assert.deepEqual(parseRoute(hash), { page: "traces", id: "4f1a", query: { span: "e04a", x: "a b" } });
  assert.equal(href("traces", "4f1a", { span: "e04a", x: "a b" }), hash);
  assert.equal(href("nodes", "", { node: "", other: undefined }), "#/nodes");
});

test("what is no page is the start page", () => {
  for (const hash of ["", "#", "#/", "#/nonsense", "#/<script>"]) assert.equal(parseRoute(hash).page, "overview");
  assert.equal(parseRoute("#/traces/%E0%A4%A").id, "%E0%A4%A");
});

test("only known windows and scopes are asked for", () => {
  assert.equal(loadPath({}).path, "api/v1/load?window_ms=10000&scope=mesh");
  assert.equal(loadPath({ window: "0", scope: "router" }).path, "api/v1/load?window_ms=0&scope=router");
  assert.equal(loadPath({ window: "7&x=1", scope: "all" }).path, "api/v1/load?window_ms=10000&scope=mesh");
});

test("a trace id is found in what was pasted", () => {
  const id = "0af7651916cd43dd8448eb211c80319c";
  assert.equal(traceIdIn(` ${id.toUpperCase()}\n`), id);
  assert.equal(traceIdIn(`00-${id}-b7ad6b7169203331-01`), id);
  assert.equal(traceIdIn(id.slice(1)), "");
  assert.equal(traceIdIn(`${id}0`), "");
});

test("filters leave what they name", () => {
  const trace = { trace_id: "abc", name: "expertmesh.v1.Router/Forward", layer: 2, duration_us: "12000", kept: "slow", code: 0 };
  const batch = { ...trace, name: "expertmesh.batch" };
  for (const query of [{}, { id: "AB" }, { layer: "2" }, { kept: "slow" }, { atleast: "10" }, { show: "requests" }]) {
    assert.ok(matches(trace, query), JSON.stringify(query));
  }
  for (const query of [{ id: "x" }, { layer: "3" }, { kept: "failed" }, { atleast: "100" }, { show: "batches" }, { show: "failed" }]) {
    assert.ok(!matches(trace, query), JSON.stringify(query));
  }
  assert.ok(matches(batch, { show: "batches" }) && !matches(batch, { show: "requests" }));
  assert.ok(matches({ ...trace, code: 14 }, { show: "failed" }));
});
