// A list of traces, one link each.
import { h } from "./dom.js";
import { clock, count, duration } from "./format.js";
import { empty, pill } from "./parts.js";
import { href } from "./route.js";
import { shortName } from "./spans.js";
import { codeName } from "./status_codes.js";

const WHY = {
  sampled: "quiet",
  batch: "quiet",
  slow: "warn",
  retried: "warn",
  failed: "bad",
};

export function noTraces(filtered) {
  return empty(
    filtered ? "No trace fits these filters." : "No trace is kept yet.",
    filtered
      ? "Take a filter away, or look for an id above."
      : "A request is kept when its caller samples it (traceparent ends in 01), when --trace-ratio chooses it, and " +
          "whenever it fails, is tried again or takes longer than --trace-slow. Send one, or raise --trace-ratio.",
  );
}

export function traceTable(traces, caption, held = {}) {
  if (traces.length === 0) return noTraces(false);
  const longest = Math.max(...traces.map((trace) => Number(trace.duration_us)), 1);
  return h("ol", { class: "traces", "aria-label": caption, ...held }, traces.map((trace) => line(trace, longest)));
}

// The traces of a source, which stay as they are while a pointer or the focus is on the list: it would move away
// under them. {traces, held}: `held` is for traceTable.
export function steadyTraces(app, name) {
  const { ui } = app;
  const now = app.data(name).value.traces;
  const hold = () => {
    ui.heldTraces ??= app.data(name).value.traces;
  };
  const release = () => app.show({ heldTraces: undefined });
  return {
    traces: ui.heldTraces ?? now,
    held: { onpointerenter: hold, onpointerleave: release, onfocusin: hold, onfocusout: release },
  };
}

function line(trace, longest) {
  const share = Number(trace.duration_us) / longest;
  const code = codeName(trace.code);
  const isBatch = trace.name === "expertmesh.batch";
  return h(
    "li",
    { key: trace.trace_id },
    h(
      "a",
      { class: `trace-line trace-${WHY[trace.kept] ?? "quiet"}`, href: href("traces", trace.trace_id) },
      h("span", { class: "trace-time" }, duration(trace.duration_us)),
      h("span", { class: "trace-bar", "aria-hidden": "true" }, h("span", { style: { width: `${(100 * share).toFixed(2)}%` } })),
      h("span", { class: "trace-what" }, isBatch ? "batch" : shortName(trace.name), ` of layer ${trace.layer}, ${count(trace.tokens)} tokens`),
      h("span", { class: "trace-why" }, pill(WHY[trace.kept] ?? "quiet", trace.kept === "batch" ? "with its batch" : trace.kept), trace.code ? pill("bad", code) : false),
      h("span", { class: "trace-at" }, clock(Number(BigInt(trace.start_unix_nano) / 1_000_000n))),
      h("code", { class: "trace-id", title: trace.trace_id }, trace.trace_id.slice(0, 8)),
    ),
  );
}
