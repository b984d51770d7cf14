// One trace: what made it late in words, a waterfall, and what the chosen span says.
import { awaitedCall, partsOf, subject } from "./cause.js";
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

const LABELS = { router: "router itself", other: "not measured" };

const time = (nanoseconds) => duration(nanoseconds / 1000);

function headline(rows) {
  const [{ span }] = rows;
  const { attributes } = span;
  const tokens = attributes["expertmesh.tokens"] ?? attributes["expertmesh.batch.tokens"];
  const what = span.name === "expertmesh.batch" ? "a batch" : shortName(span.name);
  const where = attributes["expertmesh.layer"] === undefined ? "" : ` of layer ${attributes["expertmesh.layer"]}`;
  const size = tokens === undefined ? "" : `, ${plural(tokens, "token")}`;
  return `${time(span.end - span.start)} for ${what}${where}${size}`;
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
    rows.find((row) => row.span.id === query.span) ?? rows.find((row) => row.span.id === first) ?? rowsOf[0];
  const choose = (span) => app.replace(href("traces", id, { span: span.id }));
  const detail = spanDetail(app, chosen, rowsOf[0].span, told.layout);
  const requests = rows.filter((row) => row.depth === 0).length;
  return [
    back,
    h("h1", { tabindex: "-1", key: `head-${id}` }, headline(rowsOf)),
    tools(app, id, rowsOf),
    requests > 1 ? h("p", { class: "quiet" }, `This trace has ${count(requests)} requests; this is about the ${query.span ? "chosen" : "longest"} one.`) : false,
    panel("What it waited for", { id: "cause" }, sentences(app, rowsOf), shares(rowsOf)),
    aboutCalls(told),
    waitedInQueue(rowsOf) ? ahead(app, rowsOf) : false,
    h(
      "div",
      { class: "trace-columns" },
      panel(
        "Spans",
        { id: "spans", aside: h("span", { class: "aside" }, "full colour: the slowest path") },
        waterfall(app, told.layout, { chosen, call, root: rowsOf[0].span, choose, detail: app.narrow() ? detail : undefined }),
      ),
      app.narrow() ? false : detail,
    ),
  ];
}

function absent(id, source) {
  if (source.status === 409) return note("warn", h("strong", null, "This router does not trace. "), source.error);
  return empty(`Trace ${id.slice(0, 8)} is not here.`, source.error, "It is looked for again every 5 seconds: spans are made a moment after the answer.");
}
