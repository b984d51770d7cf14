// The router and its nodes: link, work in flight, speed, what each holds.
import { latencyBar } from "./chart.js";
import { h } from "./dom.js";
import { slowness } from "./findings.js";
import { byName, bytes, count, duration, enumName, nodeName, percent, plural, ranges, seconds, times } from "./format.js";
import { definition, empty, exemplarLink, linkPill, missing, note, panel, pill, trouble } from "./parts.js";
import { href } from "./route.js";

const LATE_MS = 60_000;

function routerCard(app, topology) {
  const model = app.data("model").value;
  const balance = topology.balance ?? {};
  const layers = model?.layers ?? [];
  const experts = [...new Set(layers.map((layer) => layer.num_experts))].join(" or ");
  return panel(
    "Router",
    { id: "router", aside: topology.ready ? pill("good", "ready") : pill("bad", "not ready") },
    h(
      "dl",
      { class: "facts" },
      definition("Address", location.host),
      definition("Serves", model ? `${model.family}: ${plural(layers.length, "layer")} of ${experts} experts` : "reading ..."),
      definition("Version", model?.version ?? "reading ..."),
      definition("Epoch", count(topology.epoch)),
      definition("Decides", balance.role === "BALANCE_ROLE_FOLLOWER" ? `follows ${balance.authority}` : "on bias and placement, itself"),
      definition("Checkpoint", h("code", { title: topology.fingerprint }, topology.fingerprint.slice(0, 16))),
      model?.strict ? definition("Strict", "yes") : false,
    ),
    topology.lookup_error ? note("warn", `A name of --nodes cannot be looked up: ${topology.lookup_error}`) : false,
  );
}

function missingExperts(topology) {
  if (!topology.missing?.length) return false;
  return panel(
    "Experts without a ready node",
    { id: "missing", class: "panel-bad" },
    h("p", null, "Requests that need one of these fail. Bring back a node that holds them, or start another with the same shard."),
    h("ul", null, topology.missing.map((each) => h("li", null, `Layer ${each.layer}: experts ${ranges(each.experts)}`))),
  );
}

function placementState(app) {
  const state = app.data("placement").value?.placement;
  if (!state) return false;
  const { moves } = state;
  const idle = moves.phase === "idle";
  return panel(
    "Moves of experts",
    { id: "moves", aside: pill(idle ? "quiet" : "warn", moves.phase) },
    h(
      "dl",
      { class: "facts" },
      definition("Planned", state.policy?.automatic ? "automatically" : "when asked for"),
      idle ? false : definition("Copies", `${count(moves.copies_done)} of ${count(moves.copies_all)}, ${bytes(moves.bytes_done)} of ${bytes(moves.bytes_all)}`),
      moves.waits_for ? definition("Waits for", moves.waits_for) : false,
      definition("Completed", count(moves.moves_completed)),
      Number(moves.moves_failed) ? definition("Failed", count(moves.moves_failed)) : false,
    ),
    moves.last_error ? note("warn", moves.last_error) : false,
  );
}

function speed(app, node, late, verdict, perAssignment, most) {
  return h(
    "div",
    { class: "node-speed" },
    h("p", { class: "node-figures" }, late?.count ? [h("b", null, seconds(late.p50)), " / ", h("b", null, seconds(late.p99))] : "no calls", h("span", { class: "aside" }, " call, median / 99th percentile "), exemplarLink(app.history.exemplar("calls", node.address, LATE_MS))),
    latencyBar(late ?? {}, most, Boolean(verdict?.level)),
    h(
      "p",
      { class: "node-figures" },
      h("b", null, perAssignment === undefined ? "-" : duration(perAssignment)),
      h("span", { class: "aside" }, " computing an assignment"),
      verdict?.computesSlowly ? pill("bad", `${times(verdict.compute.ratio)} the others`) : false,
    ),
  );
}

function held(node) {
  const hosted = node.description?.hosted ?? [];
  const pairs = hosted.reduce((sum, each) => sum + each.experts.length, 0);
  const lines = hosted.map((each) => {
    const slice = each.slice_count > 1 ? `, slice ${each.slice_index + 1} of ${each.slice_count}` : "";
    return h("li", null, `Layer ${each.layer}: ${ranges(each.experts)}${slice}`);
  });
  return h(
    "details",
    { class: "held", key: "held" },
    h("summary", null, `Holds ${plural(pairs, "expert")} in ${plural(hosted.length, "layer")}`),
    h("ul", null, lines),
  );
}

function wrongs(node) {
  const counts = [
    ["faulty_answers", "faulty answer"],
    ["disagreements", "disagreement"],
    ["overdue_batches", "overdue batch", "overdue batches"],
    ["ejections", "ejection"],
    ["disconnects", "disconnect"],
  ];
  const found = counts.filter(([name]) => Number(node[name]) > 0);
  if (found.length === 0) return h("p", { class: "quiet" }, "No fault since the router started.");
  return h("p", null, found.map(([name, one, many]) => pill("warn", plural(node[name], one, many))));
}

function nodeCard(app, node, most) {
  const verdict = app.verdicts(LATE_MS).get(node.address);
  const late = app.history.latency("calls", node.address, LATE_MS);
  const described = node.description ?? {};
  const { memory } = described;
  const chosen = app.route.query.node === node.address;
  const level = node.link !== "NODE_LINK_UP" ? "down" : verdict?.level;
  return h(
    "article",
    { class: `card ${level ? `is-${level}` : ""} ${chosen ? "is-chosen" : ""}`, key: node.address, "aria-label": nodeName(node) },
    h(
      "div",
      { class: "card-head" },
      h("h3", null, h("a", { href: href("nodes", "", { node: node.address }) }, nodeName(node))),
      linkPill(node),
      verdict?.level ? pill(verdict.level === "slow" ? "bad" : "warn", verdict.level === "slow" ? "slow" : "late at times") : false,
    ),
    h("p", { class: "aside" }, `${node.address}${described.zone ? `, zone ${described.zone}` : ""}`),
    node.reason ? note("warn", node.reason) : false,
    verdict?.level ? note(verdict.level === "slow" ? "bad" : "warn", slowness(verdict)) : false,
    speed(app, node, late, verdict, app.perAssignment(node.address, LATE_MS), most),
    h(
      "dl",
      { class: "facts" },
      definition("In flight", `${plural(node.batches_in_flight, "batch", "batches")}, ${plural(node.rows_in_flight, "row")}`),
      definition("Share of calls", percent(shareOfCalls(app, node))),
      definition("State", enumName(described.state ?? "not seen yet", "NODE_STATE_")),
      definition("Computes", `${described.backend ?? "-"}, ${enumName(described.compute_dtype ?? "-", "DTYPE_")}`),
      definition("Link types", `${enumName(node.hidden_states_dtype, "DTYPE_")} there, ${enumName(node.partials_dtype, "DTYPE_")} back`),
      memory ? definition("Weights", `${bytes(memory.weights_bytes)}${Number(memory.limit_bytes) ? ` of ${bytes(memory.limit_bytes)}` : ""}`) : false,
    ),
    wrongs(node),
    (node.damaged ?? []).map((each) => note("warn", `Layer ${each.layer}, experts ${ranges(each.experts)} are damaged: ${each.reason}`)),
    held(node),
  );
}

function shareOfCalls(app, node) {
  const { nodes } = app.data("topology").value.topology;
  const counts = nodes.map((each) => app.history.latency("calls", each.address, LATE_MS)?.count ?? 0);
  const sum = counts.reduce((all, each) => all + each, 0);
  return sum ? counts[nodes.indexOf(node)] / sum : NaN;
}

export function nodes(app) {
  const source = app.data("topology");
  const title = h("h1", { tabindex: "-1" }, "Nodes");
  const instead = missing(source, "the topology");
  if (instead) return [title, instead];
  const { topology } = source.value;
  const most = Math.max(...topology.nodes.map((node) => app.history.latency("calls", node.address, LATE_MS)?.p99 ?? 0));
  const chosen = app.route.query.node;
  const first = (node) => (node.address === chosen ? 0 : 1);
  return [
    title,
    trouble(source),
    missingExperts(topology),
    topology.nodes.length === 0
      ? empty("The router knows no node.", "Start one with expertmesh-expert, and name it in --nodes of the router.")
      : h("div", { class: "cards" }, byName(topology.nodes).sort((a, b) => first(a) - first(b)).map((node) => nodeCard(app, node, most))),
    h("div", { class: "columns" }, routerCard(app, topology), placementState(app)),
  ];
}
