// One trace: what made it late in words, a waterfall, and what the chosen span says.
import { awaitedCall, partsOf, requestsOf, subject } from "./cause.js";
import { stacked } from "./chart.js";
import { h } from "./dom.js";
import { explain } from "./explanation.js";
import { clock, count, duration, nodeName, percent, plural } from "./format.js";
import { empty, missing, note, panel } from "./parts.js";
import { aheadInQueue } from "./queue_ahead.js";
import { href } from "./route.js";
import { shortName } from "./spans.js";
import { spanDetail } from "./span_detail.js";
import { traceTable } from "./trace_table.js";
import { waitedInQueue, wholeTrace } from "./trace_source.js";
import { waterfall } from "./waterfall_rows.js";

// A smaller part of the whole cannot be seen in a bar.
const LEAST_SHARE = 0.005;
const SHOWN_REQUESTS = 100;

const LABELS = { router: "router itself", other: "not measured" };

const time = (nanoseconds) => duration(nanoseconds / 1000);

function headline(rows) {
  const [{ span }] = rows;
  const { attributes } = span;
  const tokens = attributes["expertmesh.tokens"] ?? attributes["expertmesh.batch.tokens"];
  const what = span.name === "expertmesh.batch" ? "a batch" : shortName(span.name);
  const size = tokens === undefined ? "" : `, ${plural(tokens, "token")}`;
  return `${time(span.end - span.start)} for ${what}${layerOf(span)}${size}`;
}

function nodeLink(app, id) {
  const known = app.data("topology").value?.topology.nodes.find((node) => nodeName(node) === id);
  return known ? h("a", { href: href("nodes", "", { node: known.address }) }, id) : h("b", null, id);
}

function sentences(app, rows) {
  const told = explain(rows);
  if (told.length === 0) return false;
  return h(
    "ul",
    { class: "causes" },
    told.map((each) =>
      h("li", { class: each.main ? "cause cause-main" : "cause" }, each.node ? [nodeLink(app, each.node), " "] : false, each.text),
    ),
  );
}

function shares(rows) {
  const seen = partsOf(rows).filter((part) => part.share >= LEAST_SHARE);
  const parts = seen.map((part) => ({
    ...part,
    label: part.node ? `waiting for ${part.node}` : LABELS[part.what] ?? part.what,
    class: part.node ? "stage-experts" : `stage-${part.what}`,
  }));
  if (parts.length === 0) return false;
  const text = parts.map((part) => `${part.label} ${percent(part.share)}`).join(", ");
  return [
    stacked(parts, text),
    h(
      "ul",
      { class: "legend" },
      parts.map((part) =>
        h("li", null, h("span", { class: `swatch ${part.class}`, "aria-hidden": "true" }), `${part.label} `, h("b", null, time(part.time)), ` ${percent(part.share)}`),
      ),
    ),
  ];
}

// Of a trace with many requests one is drawn at a time.
function requestList(id, requests, open) {
  const longest = requests[0][0].span.end - requests[0][0].span.start || 1;
  const line = ([{ span }]) => {
    const took = span.end - span.start;
    return h(
      "li",
      { key: span.id },
      h(
        "a",
        { class: "request-line", href: href("traces", id, { span: span.id }), "aria-current": span.id === open[0].span.id ? "true" : null },
        h("span", { class: "trace-time" }, time(took)),
        h("span", { class: "trace-bar", "aria-hidden": "true" }, h("span", { style: { width: `${((100 * took) / longest).toFixed(2)}%` } })),
        h("span", null, `${shortName(span.name)}${layerOf(span)}, began at ${time(span.start)}`),
      ),
    );
  };
  const shown = requests.slice(0, SHOWN_REQUESTS);
  const more = requests.length > shown.length ? `the longest ${shown.length} of ${count(requests.length)}` : "the longest first";
  return panel(
    `${count(requests.length)} requests`,
    { id: "requests", aside: h("span", { class: "aside" }, `${more}; one is drawn below`) },
    h("ol", { class: "requests" }, shown.map(line)),
  );
}

function layerOf(span) {
  const layer = span.attributes["expertmesh.layer"];
  return layer === undefined ? "" : ` of layer ${layer}`;
}

function extent(rows) {
  return {
    rows,
    start: rows.reduce((least, row) => Math.min(least, row.span.start), Infinity),
    end: rows.reduce((most, row) => Math.max(most, row.span.end), -Infinity),
  };
}

function aboutCalls(told) {
  if (told.callsFrom) {
    return note(
      "quiet",
      "The calls of nodes were made once for the whole batch, and belong to ",
      h("a", { href: href("traces", told.callsFrom) }, `the trace of another request, ${told.callsFrom.slice(0, 8)}`),
      "; they are drawn here too, with a dashed outline.",
    );
  }
  return told.callsError ? note("warn", "The calls of nodes are in the trace of another request of this batch. ", told.callsError) : false;
}

function ahead(app, rows) {
  const all = app.data("around").value?.traces;
  const found = all ? aheadInQueue(all, app.data("trace").value.firstUnixNano, rows) : [];
  if (found.length === 0) return false;
  return panel(
    "Ahead of it in the queue",
    { id: "ahead", aside: h("span", { class: "aside" }, "kept traces of its layer that were answered while it waited") },
    traceTable(found, "Traces ahead of it in the queue"),
  );
}

// The way to the batch that a request left the queue with, whichever span is chosen.
function batchLink(rows) {
  const row = rows.find(({ span }) => span.attributes["expertmesh.batch.requests"] !== undefined);
  const link = row && row !== rows[0] && row.span.links.find((each) => each.traceId === row.span.attributes["expertmesh.batch.id"]);
  if (!link) return false;
  const requests = plural(row.span.attributes["expertmesh.batch.requests"], "request");
  return h("a", { class: "button", href: href("traces", link.traceId, { span: link.spanId }) }, `Its batch of ${requests}`);
}

function tools(app, id, rows) {
  const start = Number(app.data("trace").value.firstUnixNano / 1_000_000n);
  return h(
    "p",
    { class: "trace-tools" },
    h("code", { class: "whole-id" }, id),
    h("span", { class: "aside" }, `began at ${clock(start)}`),
    batchLink(rows),
    h("a", { class: "button", href: `api/v1/traces/${encodeURIComponent(id)}?download=1`, download: `${id}.json` }, "Download OTLP/JSON"),
  );
}

export function trace(app) {
  const { id, query } = app.route;
  const back = h("p", { class: "back" }, h("a", { href: href("traces") }, "Traces"));
  const source = app.data("trace");
  const instead = source.error && source.value === undefined ? absent(id, source) : missing(source, "the trace");
  if (instead) return [back, h("h1", { tabindex: "-1" }, "Trace"), instead];
  if (source.value.spans.length === 0) return [back, h("h1", { tabindex: "-1" }, "Trace"), empty("This trace has no spans.")];
  const told = wholeTrace(app);
  const { rows } = told.layout;
  const rowsOf = subject(rows, query.span);
  const call = awaitedCall(rowsOf);
  // Of a batch its requests are what one looks for first.
  const first = rowsOf[0].span.links.length ? undefined : call?.span.id;
  const chosen =
    rowsOf.find((row) => row.span.id === query.span) ?? rowsOf.find((row) => row.span.id === first) ?? rowsOf[0];
  const choose = (span) => app.replace(href("traces", id, { span: span.id }));
  const detail = spanDetail(app, chosen, rowsOf[0].span);
  const requests = requestsOf(rows);
  return [
    back,
    h("h1", { tabindex: "-1", key: `head-${id}` }, headline(rowsOf)),
    tools(app, id, rowsOf),
    requests.length > 1 ? requestList(id, requests, rowsOf) : false,
    panel("What it waited for", { id: "cause" }, sentences(app, rowsOf), shares(rowsOf)),
    aboutCalls(told),
    waitedInQueue(rowsOf) ? ahead(app, rowsOf) : false,
    h(
      "div",
      { class: "trace-columns" },
      panel(
        "Spans",
        { id: "spans", aside: h("span", { class: "aside" }, "full colour: the slowest path") },
        waterfall(app, extent(rowsOf), { chosen, call, root: rowsOf[0].span, choose, detail: app.narrow() ? detail : undefined }),
      ),
      app.narrow() ? false : detail,
    ),
  ];
}

function absent(id, source) {
  if (source.status === 409) return note("warn", h("strong", null, "This router does not trace. "), source.error);
  return empty(`Trace ${id.slice(0, 8)} is not here.`, source.error, source.status === 404 && "It is looked for again every 5 seconds: spans are made a moment after the answer.");
}
