// The page as a whole: what is read for the view that is open, and when it is drawn.
import { render } from "./dom.js";
import { banner, head } from "./frame.js";
import { History } from "./history.js";
import { computePerAssignment, judgeNodes } from "./node_speed.js";
import { Poller } from "./poller.js";
import { href, parseRoute } from "./route.js";
import { traceSources } from "./trace_source.js";
import { balance } from "./view_balance.js";
import { experts, loadPath } from "./view_experts.js";
import { latency } from "./view_latency.js";
import { nodes } from "./view_nodes.js";
import { overview } from "./view_overview.js";
import { trace } from "./view_trace.js";
import { traces, tracesPath } from "./view_traces.js";

const PATIENCE_MS = 10_000;
const TOPOLOGIES_MS = 310_000;

const VIEWS = { overview, nodes, experts, balance, latency, traces };
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const narrow = window.matchMedia("(max-width: 1000px)");

let resting;

const app = {
  route: parseRoute(location.hash),
  history: new History(),
  topologies: [],
  ui: { paused: false },
  data: (name) => poller.get(name),
  go: (to) => {
    location.hash = to;
  },
  // Without a step back for each cell that the cursor crossed; the address follows when it rests, since browsers
  // refuse to change it often.
  replace: (to) => {
    clearTimeout(resting);
    resting = setTimeout(() => window.history.replaceState(null, "", to), 200);
    app.route = parseRoute(to);
    poller.want(wanted());
    drawSoon();
  },
  show: (change) => {
    Object.assign(app.ui, change);
    drawSoon();
  },
  togglePause: () => {
    app.show({ paused: !app.ui.paused });
    poller.wake();
  },
  retry: () => poller.retryNow(),
  theme: () => (dark.matches ? "dark" : "light"),
  narrow: () => narrow.matches,
  ink: () => getComputedStyle(document.body).color,
  contentWidth: () => document.getElementById("content").clientWidth - 64,
  focusSpan: (id) => document.querySelector(`button.row[data-span="${CSS.escape(id)}"]`)?.focus(),
  perAssignment: (address, ms) => {
    const at = (topology) => topology?.nodes.find((node) => node.address === address);
    const last = app.topologies[app.topologies.length - 1];
    const first = app.topologies.find((each) => each !== last && each.at >= last.at - ms);
    return last && at(last) && first ? computePerAssignment(at(first), at(last)) : undefined;
  },
  // Once for each drawing: every node is compared with every other.
  verdicts: (ms) => {
    if (!verdicts.has(ms)) verdicts.set(ms, judge(ms));
    return verdicts.get(ms);
  },
};

const verdicts = new Map();

function judge(ms) {
  const { value } = app.data("topology");
  const figures = (value?.topology.nodes ?? []).map(({ address }) => [
    address,
    { call: app.history.latency("calls", address, ms), perAssignment: app.perAssignment(address, ms) },
  ]);
  return judgeNodes(new Map(figures));
}

const poller = new Poller({
  load: async (path) => {
    // Of metrics that form which has trace ids.
    const headers = { Accept: path === "metrics" ? "application/openmetrics-text" : "*/*" };
    const signal = AbortSignal.timeout(PATIENCE_MS);
    const answer = await fetch(new URL(path, document.baseURI), { headers, signal });
    return { ok: answer.ok, status: answer.status, body: await answer.text() };
  },
  changed: () => {
    poller.want(wanted());
    draw();
  },
  active: () => !document.hidden,
  again: () => !app.ui.paused,
});
app.poller = poller;

function everywhere() {
  return [
    {
      name: "topology",
      path: "api/v1/topology",
      everyMs: 2000,
      accept: (body, at) => {
        const value = JSON.parse(body);
        app.topologies.push({ at, nodes: value.topology.nodes });
        while (app.topologies[0].at < at - TOPOLOGIES_MS) app.topologies.shift();
        return value;
      },
    },
    {
      name: "metrics",
      path: "metrics",
      everyMs: 2000,
      accept: (body, at) => {
        app.history.add(at, body);
        return true;
      },
    },
    { name: "model", path: "api/v1/model", everyMs: 60_000 },
  ];
}

const BALANCE = { name: "balance", path: "api/v1/balance", everyMs: 2000 };

const SOURCES = {
  overview: () => [BALANCE, { name: "recent", path: "api/v1/traces?order=recent&limit=200", everyMs: 3000 }],
  nodes: () => [{ name: "placement", path: "api/v1/placement", everyMs: 3000 }],
  experts: ({ query }) => [{ name: "load", path: loadPath(query).path, everyMs: 2000 }],
  balance: ({ query }) => [
    BALANCE,
    { name: "epochs", path: "api/v1/epochs", everyMs: 3000 },
    { name: "bias", path: "api/v1/bias", everyMs: 3000 },
    ...(query.epoch ? [{ name: "bias_then", path: `api/v1/bias?epoch=${encodeURIComponent(query.epoch)}`, everyMs: Infinity }] : []),
  ],
  latency: () => [],
  traces: ({ id, query }) =>
    id ? traceSources(app, id) : [{ name: "traces", path: tracesPath(query), everyMs: 3000 }],
};

function wanted() {
  return [...everywhere(), ...SOURCES[app.route.page](app.route)];
}

function draw() {
  verdicts.clear();
  render(document.getElementById("head"), head(app));
  render(document.getElementById("banner"), banner(app));
  const { page, id } = app.route;
  const view = page === "traces" && id ? trace : VIEWS[page];
  const content = document.getElementById("content");
  render(content, view(app));
  content.classList.toggle("is-old", poller.unreachable);
}

let frame;

// Once for all that happens before the next frame, such as a key that is held down.
function drawSoon() {
  cancelAnimationFrame(frame);
  frame = requestAnimationFrame(draw);
}

// Another address: perhaps another page.
function follow(hash) {
  const before = app.route;
  app.route = parseRoute(hash);
  const moved = before.page !== app.route.page || before.id !== app.route.id;
  if (moved) app.ui = { paused: app.ui.paused };
  poller.want(wanted());
  draw();
  if (moved) {
    document.title = `${app.route.page} - ${location.host} - Expertmesh`;
    window.scrollTo(0, 0);
    document.querySelector("#content h1")?.focus({ preventScroll: true });
  }
}

window.addEventListener("hashchange", () => {
  clearTimeout(resting);
  follow(location.hash);
});
document.addEventListener("visibilitychange", () => poller.wake());
window.addEventListener("resize", draw);
dark.addEventListener("change", draw);
// What is written on the page ages while the router says nothing.
setInterval(() => poller.unreachable && !document.hidden && draw(), 1000);

// The address says which page it is: a jump within one must not change it.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  document.getElementById("content").focus();
});

if (!location.hash) window.history.replaceState(null, "", href("overview"));
document.querySelector("noscript")?.remove();
follow(location.hash);
