// Traces that the router keeps: the latest or the slowest, filtered, or one by its id.
import { h } from "./dom.js";
import { plural } from "./format.js";
import { choice, missing, note, panel, trouble } from "./parts.js";
import { href } from "./route.js";
import { noTraces, steadyTraces, traceTable } from "./trace_table.js";

export const SHOWN = 200;

export function tracesPath(query) {
  return `api/v1/traces?order=${query.order === "slowest" ? "slowest" : "recent"}&limit=${SHOWN}`;
}

// The id in what somebody pasted, which may be a whole traceparent; "" when there is none.
export function traceIdIn(text) {
  const found = /(?:^|[^0-9a-f])([0-9a-f]{32})(?:$|[^0-9a-f])/.exec(text.trim().toLowerCase());
  return found ? found[1] : "";
}

export function matches(trace, query) {
  if (query.id && !trace.trace_id.includes(query.id.toLowerCase())) return false;
  if (query.layer && String(trace.layer) !== query.layer) return false;
  if (query.show === "failed" && !trace.code) return false;
  if (query.show === "batches" && trace.name !== "expertmesh.batch") return false;
  if (query.show === "requests" && trace.name === "expertmesh.batch") return false;
  if (query.kept && trace.kept !== query.kept) return false;
  return !(Number(query.atleast) > 0 && Number(trace.duration_us) < Number(query.atleast) * 1000);
}

function search(app) {
  const { query } = app.route;
  const problem = app.ui.searchProblem;
  const submit = (event) => {
    event.preventDefault();
    const text = event.currentTarget.elements.id.value;
    const id = traceIdIn(text);
    app.ui.searchProblem = id || !text ? "" : "A trace id has 32 hexadecimal digits; a part of one filters the list below.";
    if (id) app.go(href("traces", id));
    else app.go(href("traces", "", { ...query, id: /^[0-9a-f]+$/i.test(text.trim()) ? text.trim() : "" }));
  };
  return h(
    "form",
    { class: "search", role: "search", onsubmit: submit },
    h("label", { for: "trace-id" }, "Trace id, or a traceparent"),
    h("input", { id: "trace-id", name: "id", type: "search", autocomplete: "off", spellcheck: "false", placeholder: "32 hexadecimal digits" }),
    h("button", { type: "submit" }, "Open"),
    problem ? h("p", { class: "search-problem", role: "alert" }, problem) : false,
  );
}

function select(app, name, label, options) {
  const { query } = app.route;
  return h(
    "label",
    { class: "filter" },
    `${label} `,
    h(
      "select",
      {
        value: query[name] ?? "",
        onchange: (event) => app.replace(href("traces", "", { ...app.route.query, [name]: event.target.value })),
      },
      options.map(([value, text]) => h("option", { value, key: value }, text)),
    ),
  );
}

function filters(app) {
  const layers = app.data("model").value?.layers ?? [];
  return h(
    "div",
    { class: "filters" },
    select(app, "layer", "Layer", [["", "any"], ...layers.map(({ layer }) => [String(layer), String(layer)])]),
    select(app, "show", "Show", [
      ["", "everything"],
      ["requests", "requests"],
      ["batches", "batches"],
      ["failed", "failed"],
    ]),
    select(app, "kept", "Kept as", [
      ["", "any"],
      ["sampled", "sampled"],
      ["slow", "slow"],
      ["failed", "failed"],
      ["retried", "retried"],
      ["batch", "with its batch"],
    ]),
    select(app, "atleast", "Longer than", [
      ["", "any time"],
      ["1", "1 ms"],
      ["10", "10 ms"],
      ["100", "100 ms"],
      ["1000", "1 s"],
    ]),
  );
}

function list(app) {
  const source = app.data("traces");
  if (source.status === 409) {
    return note("warn", h("strong", null, "This router does not trace. "), source.error);
  }
  const instead = missing(source, "traces");
  if (instead) return instead;
  const { traces, held } = steadyTraces(app, "traces");
  const kept = traces.filter((trace) => matches(trace, app.route.query));
  const slowest = app.route.query.order === "slowest";
  return [
    trouble(source),
    h(
      "p",
      { class: "quiet" },
      kept.length === traces.length ? plural(kept.length, "trace") : `${kept.length} of ${plural(traces.length, "trace")}`,
      app.ui.heldTraces ? "; the list stays as it is while you are on it" : "",
    ),
    traces.length > 0 && kept.length === 0 ? noTraces(true) : traceTable(kept, slowest ? "Slowest traces" : "Latest traces", held),
  ];
}

export function traces(app) {
  const { query } = app.route;
  const slowest = query.order === "slowest";
  return [
    h("h1", { tabindex: "-1" }, "Traces"),
    search(app),
    h(
      "div",
      { class: "choices" },
      choice("Order", [
        { label: "latest", href: href("traces", "", { ...query, order: "" }), current: !slowest },
        { label: "slowest", href: href("traces", "", { ...query, order: "slowest" }), current: slowest },
      ]),
      filters(app),
    ),
    panel(slowest ? "Slowest first" : "Latest first", { id: "trace-list" }, list(app)),
  ];
}
