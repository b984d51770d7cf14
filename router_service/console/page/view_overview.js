// The start page: is the mesh well, how much does it do, what is slow.
import { latencyBar, stacked, trend } from "./chart.js";
import { h } from "./dom.js";
import { findings } from "./findings.js";
import { ago, byName, count, enumName, nodeName, percent, plural, rate, seconds } from "./format.js";
import { STAGES } from "./history.js";
import { definition, empty, linkPill, missing, panel, pill, trouble } from "./parts.js";
import { href } from "./route.js";
import { steadyTraces, traceTable } from "./trace_table.js";

const LATE_MS = 60_000;
const SHOWN_TRACES = 8;

function readiness(topology) {
  const up = topology.nodes.filter((node) => node.link === "NODE_LINK_UP").length;
  const nodes = `${up} of ${plural(topology.nodes.length, "node")} up`;
  return h(
    "p",
    { class: "lead" },
    topology.ready ? pill("good", "ready") : pill("bad", "not ready"),
    topology.ready ? ` Every expert of every layer can be reached; ${nodes}.` : ` Some experts cannot be reached; ${nodes}.`,
  );
}

function findingList(app, topology) {
  const rates = {
    failed: app.history.rate("failed", LATE_MS) ?? 0,
    requests: app.history.rate("requests", LATE_MS) ?? 0,
    retries: app.history.rate("retries", LATE_MS) ?? 0,
  };
  const balance = app.data("balance").value?.balance;
  const found = findings({ topology, balance, verdicts: app.verdicts(LATE_MS), rates });
  if (found.length === 0) {
    return h("p", { class: "calm" }, "Nothing stands out: no node is down or slow, no request fails, balancing is alive.");
  }
  return h(
    "ul",
    { class: "findings" },
    found.map((each) =>
      h(
        "li",
        { class: `finding finding-${each.level}` },
        h("a", { href: href(each.page, "", each.query) }, each.text),
      ),
    ),
  );
}

function tile(title, value, below, drawing) {
  return h(
    "div",
    { class: "tile" },
    h("h3", null, title),
    h("p", { class: "tile-value" }, value),
    h("p", { class: "tile-below" }, below),
    drawing,
  );
}

function tiles(app) {
  const { history } = app;
  const late = history.latency("stages", "request", LATE_MS);
  const line = (points, kind) => [{ points, class: kind }];
  const rateTile = (title, counter, below) => {
    const drawing = trend(line(history.rateTrend(counter, LATE_MS), "trend-main"), { label: `${title}, last minute`, format: rate });
    return tile(title, rate(history.rate(counter, LATE_MS)), below, drawing);
  };
  const quantileTile = (title, q, value) => {
    const points = history.quantileTrend("stages", "request", q, LATE_MS);
    const drawing = trend(line(points, q > 0.9 ? "trend-high" : "trend-main"), { label: `${title}, last minute`, format: seconds });
    return tile(title, seconds(value), "of requests, last minute", drawing);
  };
  return h(
    "div",
    { class: "tiles" },
    rateTile("Tokens a second", "tokens", `${count(history.last?.tokensInFlight)} in flight`),
    rateTile("Requests a second", "requests", `${rate(history.rate("failed", LATE_MS))} fail`),
    quantileTile("Median latency", 0.5, late?.p50),
    quantileTile("99th percentile", 0.99, late?.p99),
  );
}

function timeShares(app) {
  const late = STAGES.map((stage) => ({ stage, latency: app.history.latency("stages", stage, LATE_MS) }));
  const requests = app.history.latency("stages", "request", LATE_MS)?.count;
  const means = late.map(({ stage, latency }) => ({ stage, time: latency?.mean ?? 0 }));
  const sum = means.reduce((all, each) => all + each.time, 0);
  if (!requests || sum === 0) return empty("No request was answered within the last minute.");
  const parts = means.map(({ stage, time }) => ({ stage, time, share: time / sum, class: `stage-${stage}` }));
  return [
    stacked(parts, parts.map((part) => `${part.stage} ${percent(part.share)}`).join(", ")),
    h(
      "ul",
      { class: "legend" },
      parts.map((part) =>
        h("li", null, h("span", { class: `swatch stage-${part.stage}`, "aria-hidden": "true" }), `${part.stage} `, h("b", null, seconds(part.time)), ` ${percent(part.share)}`),
      ),
    ),
  ];
}

function nodeStrip(app, topology) {
  const verdicts = app.verdicts(LATE_MS);
  const rows = byName(topology.nodes).map((node) => ({
    node,
    late: app.history.latency("calls", node.address, LATE_MS),
    verdict: verdicts.get(node.address),
  }));
  const most = Math.max(...rows.map((row) => row.late?.p99 ?? 0));
  return h(
    "ul",
    { class: "strip" },
    rows.map(({ node, late, verdict }) =>
      h(
        "li",
        { key: node.address, class: verdict?.level ? `strip-row is-${verdict.level}` : "strip-row" },
        h("a", { class: "strip-name", href: href("nodes", "", { node: node.address }) }, nodeName(node)),
        node.link === "NODE_LINK_UP" ? false : linkPill(node),
        verdict?.level ? pill(verdict.level === "slow" ? "bad" : "warn", verdict.level === "slow" ? "slow" : "late at times") : false,
        h("span", { class: "strip-figures" }, late?.count ? `${seconds(late.p50)} / ${seconds(late.p99)}` : "no calls"),
        latencyBar(late ?? {}, most, Boolean(verdict?.level)),
      ),
    ),
  );
}

function decider(topology) {
  const balance = topology.balance ?? {};
  const follower = balance.role === "BALANCE_ROLE_FOLLOWER";
  return h(
    "dl",
    { class: "facts" },
    definition("Epoch", count(topology.epoch)),
    definition("This router", follower ? `follows ${balance.authority}` : `is the ${enumName(balance.role, "BALANCE_ROLE_")}`),
    definition("Balancing", balance.alive ? pill("good", "alive") : pill("bad", "not alive"), balance.alive ? "" : ` ${balance.reason}`),
    definition("Last change", ago(balance.since_change_ms)),
    definition(follower ? "Authority heard" : "Load looked at", ago(balance.since_tick_ms)),
  );
}

function traces(app) {
  const source = app.data("recent");
  const instead = missing(source, "traces");
  if (instead) return instead;
  const { traces: latest, held } = steadyTraces(app, "recent");
  const slowest = [...latest].sort((a, b) => Number(b.duration_us) - Number(a.duration_us));
  return [trouble(source), traceTable(slowest.slice(0, SHOWN_TRACES), "Slowest of the latest traces", held)];
}

export function overview(app) {
  const source = app.data("topology");
  const instead = missing(source, "the topology");
  if (instead) return [h("h1", { tabindex: "-1" }, "Overview"), instead];
  const { topology } = source.value;
  return [
    h("h1", { tabindex: "-1" }, "Overview"),
    trouble(source),
    panel("State of the mesh", { id: "state" }, readiness(topology), findingList(app, topology)),
    tiles(app),
    h(
      "div",
      { class: "columns" },
      panel("Calls of nodes", { id: "strip", aside: h("span", { class: "aside" }, "median / 99th percentile, last minute") }, nodeStrip(app, topology)),
      h(
        "div",
        { class: "stack" },
        panel("Where the time goes", { id: "shares", aside: h("a", { href: href("latency") }, "latency") }, timeShares(app)),
        panel("Who decides", { id: "decides", aside: h("a", { href: href("balance") }, "balance") }, decider(topology)),
      ),
    ),
    panel("Slowest of the latest traces", { id: "slow", aside: h("a", { href: href("traces", "", { order: "slowest" }) }, "all kept traces") }, traces(app)),
  ];
}
