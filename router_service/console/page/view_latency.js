// How long each stage takes, of late.
import { latencyBar, trend } from "./chart.js";
import { h } from "./dom.js";
import { byName, count, nodeName, rate, seconds } from "./format.js";
import { STAGES } from "./history.js";
import { choice, empty, exemplarLink, panel, table } from "./parts.js";
import { href } from "./route.js";

const SPANS = [
  ["10", "10 s"],
  ["60", "1 min"],
  ["300", "5 min"],
];

const MEANING = {
  request: "from arrival to answer",
  queue: "from arrival until the batch was closed",
  route: "rows are gathered, the gate chooses experts",
  plan: "which node serves which assignment",
  experts: "nodes at work, and the ways there and back",
  combine: "partials are summed, answers sent",
  stall: "from a dispatch until another node was asked",
};

function spanOf(query) {
  return Number(SPANS.find(([value]) => value === query.span)?.[0] ?? 60) * 1000;
}

function stageRow(app, stage, ms) {
  const late = app.history.latency("stages", stage, ms);
  const line = (q, kind) => ({ points: app.history.quantileTrend("stages", stage, q, ms), class: kind });
  return h(
    "article",
    { class: "stage", key: stage },
    h("h3", null, h("span", { class: `swatch stage-${stage}`, "aria-hidden": "true" }), stage === "request" ? "whole request" : stage, " ", exemplarLink(app.history.exemplar("stages", stage, ms))),
    h("p", { class: "aside" }, MEANING[stage]),
    h(
      "dl",
      { class: "stage-figures" },
      [
        ["median", seconds(late?.p50)],
        ["99th", seconds(late?.p99)],
        ["mean", seconds(late?.mean)],
        ["a second", rate(late?.perSecond)],
      ].map(([term, value]) => h("div", null, h("dt", null, term), h("dd", null, value))),
    ),
    trend([line(0.99, "trend-high"), line(0.5, "trend-main")], {
      label: `${stage}: median and 99th percentile over time`,
      height: 56,
      format: seconds,
    }),
  );
}

function calls(app, ms) {
  const nodes = app.data("topology").value?.topology.nodes ?? [];
  const verdicts = app.verdicts(ms);
  const rows = byName(nodes).map((node) => ({ node, late: app.history.latency("calls", node.address, ms), verdict: verdicts.get(node.address) }));
  const most = Math.max(...rows.map((row) => row.late?.p99 ?? 0));
  const columns = [
    { title: "Node", cell: (row) => h("a", { href: href("nodes", "", { node: row.node.address }) }, nodeName(row.node)) },
    { title: "Calls", class: "number", cell: (row) => count(row.late?.count ?? 0) },
    { title: "Median", class: "number", cell: (row) => seconds(row.late?.p50) },
    { title: "99th", class: "number", cell: (row) => seconds(row.late?.p99) },
    { title: "Mean", class: "number", cell: (row) => seconds(row.late?.mean) },
    { title: "Longest sampled", cell: (row) => exemplarLink(app.history.exemplar("calls", row.node.address, ms)) || "-" },
    { title: "", class: "wide", cell: (row) => latencyBar(row.late ?? {}, most, Boolean(row.verdict?.level)) },
  ];
  return table("Calls by node", columns, rows, {
    keyOf: (row) => row.node.address,
    rowClass: (row) => (row.verdict?.level ? `is-${row.verdict.level}` : ""),
  });
}

export function latency(app) {
  const ms = spanOf(app.route.query);
  const options = SPANS.map(([value, label]) => ({
    label,
    href: href("latency", "", { span: value }),
    current: Number(value) * 1000 === ms,
  }));
  const late = app.history.latency("stages", "request", ms);
  const covered = app.history.last && app.history.from(ms) ? app.history.last.at - app.history.from(ms).at : 0;
  return [
    h("h1", { tabindex: "-1" }, "Latency"),
    h("div", { class: "choices" }, choice("Of the last", options)),
    h(
      "p",
      { class: "quiet" },
      covered
        ? `Of ${seconds(Math.round(covered / 1000))} that this page has watched; the thin line is the 99th percentile, the thick one the median.`
        : "Drawn from differences between reads: the first figures come with the second read.",
    ),
    late && late.count === 0 ? empty("No request was answered in this time.") : false,
    h("div", { class: "stages" }, ["request", ...STAGES, "stall"].map((stage) => stageRow(app, stage, ms))),
    panel("Calls of nodes", { id: "calls" }, calls(app, ms)),
  ];
}
