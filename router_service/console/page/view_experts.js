// Load of every expert of every layer, live: a heatmap, the cell under the cursor in words, and its layer as a table.
import { h } from "./dom.js";
import { count, duration, nodeName, percent, times } from "./format.js";
import { cellAt, cellSize, drawHeat } from "./heat_canvas.js";
import { colour, css, layerScale, moveCursor, ratioToBalanced } from "./heat_scale.js";
import { choice, empty, missing, panel, table, trouble } from "./parts.js";
import { href } from "./route.js";

export const WINDOWS = [
  ["1000", "1 s"],
  ["10000", "10 s"],
  ["300000", "5 min"],
  ["0", "since start"],
];
export const SCOPES = [
  ["mesh", "all routers"],
  ["router", "this router"],
];

export function loadPath(query) {
  const chosen = (options, value, usual) => (options.some(([known]) => known === value) ? value : usual);
  const window = chosen(WINDOWS, query.window, "10000");
  const scope = chosen(SCOPES, query.scope, "mesh");
  return { window, scope, path: `api/v1/load?window_ms=${window}&scope=${scope}` };
}

function choices({ query }) {
  const { window, scope } = loadPath(query);
  const options = (list, name, value) =>
    list.map(([each, label]) => ({ label, href: href("experts", "", { ...query, [name]: each }), current: each === value }));
  return h(
    "div",
    { class: "choices" },
    choice("Window", options(WINDOWS, "window", window)),
    choice("Whose requests", options(SCOPES, "scope", scope)),
  );
}

function legend(theme) {
  const steps = [
    [0, "none"],
    [0.25, "¼× or less"],
    [0.5, "½×"],
    [1, "balanced"],
    [2, "2×"],
    [4, "4× or more"],
  ];
  return h(
    "ul",
    { class: "legend" },
    steps.map(([ratio, label]) =>
      h("li", null, h("span", { class: "swatch", "aria-hidden": "true", style: { background: css(colour(ratio, theme)) } }), label),
    ),
  );
}

// The names of the nodes that hold each expert of a layer.
function holdersOf(app, layer) {
  const found = new Map();
  for (const node of app.data("topology").value?.topology.nodes ?? []) {
    for (const hosted of node.description?.hosted ?? []) {
      if (hosted.layer !== layer) continue;
      for (const expert of hosted.experts) found.set(expert, [...(found.get(expert) ?? []), nodeName(node)]);
    }
  }
  return found;
}

function cursorOf(app, layers) {
  const { query } = app.route;
  const row = Math.max(0, layers.findIndex((each) => String(each.layer) === query.layer));
  const size = layers[row].assignments.length;
  return { row, column: Math.max(0, Math.min(size - 1, Number.parseInt(query.expert ?? "0", 10) || 0)) };
}

function readOut(app, layer, expert) {
  const value = layer.assignments[expert];
  const scale = layerScale(layer.assignments);
  const on = holdersOf(app, layer.layer).get(expert) ?? [];
  return h(
    "p",
    { class: "read-out", id: "read-out", "aria-live": "polite" },
    h("b", null, `Layer ${layer.layer}, expert ${expert}: ${count(value)} assignments`),
    scale.sum ? `, ${times(ratioToBalanced(value, scale))} the balanced load` : ", no load in the layer",
    on.length ? `; on ${on.join(", ")}.` : "; on no node that is known.",
  );
}

function heatmap(app, layers) {
  const columns = Math.max(...layers.map((layer) => layer.assignments.length));
  const cursor = cursorOf(app, layers);
  const cell = cellSize(app.contentWidth(), layers.length, columns);
  const go = ({ row, column }) =>
    app.replace(href("experts", "", { ...app.route.query, layer: layers[row].layer, expert: column }));
  const draw = (canvas) => drawHeat(canvas, { layers, columns, cell, cursor, theme: app.theme(), ink: app.ink() });
  return h(
    "div",
    { class: "heat-box" },
    h("canvas", {
      class: "heat",
      tabindex: "0",
      role: "application",
      "aria-roledescription": "heatmap",
      "aria-label": `Load of ${layers.length} layers by ${columns} experts. Arrow keys move; the text below says the number.`,
      "aria-describedby": "read-out",
      draw,
      onkeydown: (event) => {
        const to = moveCursor(cursor, event.key, layers.length, columns);
        if (!to || event.ctrlKey || event.metaKey || event.altKey) return;
        event.preventDefault();
        go({ row: to.row, column: Math.min(to.column, layers[to.row].assignments.length - 1) });
      },
      onpointermove: (event) => {
        const at = event.pointerType === "mouse" && cellAt(event, cell, layers.length, columns);
        if (at && (at.row !== cursor.row || at.column !== cursor.column)) go(at);
      },
      onclick: (event) => {
        const at = cellAt(event, cell, layers.length, columns);
        if (at) go(at);
      },
    }),
  );
}

function layerTable(app, layer) {
  const scale = layerScale(layer.assignments);
  const holders = holdersOf(app, layer.layer);
  const sorted = app.route.query.sort === "load";
  const rows = layer.assignments.map((value, expert) => ({ expert, value }));
  if (sorted) rows.sort((a, b) => Number(b.value) - Number(a.value));
  const columns = [
    { title: "Expert", class: "number", cell: (row) => String(row.expert) },
    { title: "Assignments", class: "number", cell: (row) => count(row.value) },
    { title: "Of balanced", class: "number", cell: (row) => (scale.sum ? times(ratioToBalanced(row.value, scale)) : "-") },
    { title: "Share", class: "number", cell: (row) => percent(scale.sum ? Number(row.value) / scale.sum : NaN) },
    { title: "On", cell: (row) => (holders.get(row.expert) ?? []).join(", ") || "-" },
  ];
  const order = choice("Order", [
    { label: "by expert", href: href("experts", "", { ...app.route.query, sort: "" }), current: !sorted },
    { label: "by load", href: href("experts", "", { ...app.route.query, sort: "load" }), current: sorted },
  ]);
  const chosen = cursorOf(app, [layer]).column;
  return panel(
    `Layer ${layer.layer}`,
    { id: "layer-table", aside: order },
    h(
      "p",
      { class: "quiet" },
      `${count(layer.tokens)} tokens, ${count(scale.sum)} assignments; nodes computed ${duration(layer.node_us)}. ` +
        `With a bias that is not the checkpoint's: ${count(layer.compared_tokens)} tokens, of which ${count(layer.changed_tokens)} went to other experts for it.`,
    ),
    table(`Assignments of layer ${layer.layer} by expert`, columns, rows, {
      keyOf: (row) => String(row.expert),
      rowClass: (row) => (row.expert === chosen ? "is-chosen" : ""),
    }),
  );
}

export function experts(app) {
  const title = h("h1", { tabindex: "-1" }, "Experts");
  const source = app.data("load");
  const instead = missing(source, "the load of experts");
  if (instead) return [title, choices(app.route), instead];
  const layers = source.value.layers ?? [];
  if (layers.length === 0) return [title, empty("This router serves no layer with experts.")];
  const any = layers.some((layer) => layer.assignments.some((value) => value !== "0"));
  const cursor = cursorOf(app, layers);
  const layer = layers[cursor.row];
  return [
    title,
    trouble(source),
    choices(app.route),
    panel(
      "Assignments by layer and expert",
      { id: "heat", aside: h("span", { class: "aside" }, "coloured relative to the balanced load of the layer") },
      any ? false : empty("No token was routed within this window.", "Choose a longer one, or send requests."),
      readOut(app, layer, cursor.column),
      heatmap(app, layers),
      legend(app.theme()),
    ),
    layerTable(app, layer),
  ];
}
