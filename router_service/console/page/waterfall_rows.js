// The waterfall as elements: one button for each span. One of them takes part in the order of Tab; arrows move.
import { h } from "./dom.js";
import { duration, percent } from "./format.js";
import { isNodeCall, shortName } from "./spans.js";
import { moveRow, ticks } from "./waterfall.js";

const time = (nanoseconds) => duration(nanoseconds / 1000);

export function serviceClass(span) {
  if (span.service === "expertmesh-router") return "of-router";
  return span.service === "expertmesh-expert" ? "of-node" : "of-other";
}

function place({ span }, { start, end }) {
  const length = end - start || 1;
  const left = (100 * (span.start - start)) / length;
  const width = Math.max((100 * (span.end - span.start)) / length, 0.15);
  return { left: `${left.toFixed(3)}%`, width: `${Math.min(width, 100 - left).toFixed(3)}%` };
}

// What stands behind a name: which node, for spans that are about one.
function whose(span) {
  return span.attributes["expertmesh.node"] ?? span.process["expertmesh.node"] ?? "";
}

function row(each, layout, { chosen, call, root, choose }) {
  const { span } = each;
  const isCause = call && span.id === call.span.id && call.standsOut;
  const share = (span.end - span.start) / (root.end - root.start || 1);
  const classes = ["row", serviceClass(span)];
  if (each.onPath) classes.push("on-path");
  if (isCause) classes.push("is-cause");
  if (span.shared) classes.push("is-shared");
  if (span.failed) classes.push("is-failed");
  const isChosen = each === chosen;
  return h(
    "button",
    {
      type: "button",
      class: classes.join(" "),
      tabindex: isChosen ? "0" : "-1",
      "aria-pressed": isChosen ? "true" : "false",
      "data-span": span.id,
      onclick: () => choose(span),
    },
    h(
      "span",
      { class: "row-name", style: { "padding-left": `${Math.min(each.depth, 8) * 12}px` } },
      h("span", { class: "row-mark", "aria-hidden": "true" }),
      h("span", { class: "row-title" }, isNodeCall(span) ? "call of" : shortName(span.name)),
      " ",
      whose(span) ? h("b", { class: "row-node" }, whose(span)) : false,
      span.failed ? h("span", { class: "row-failed" }, "failed") : false,
    ),
    h(
      "span",
      { class: "row-track" },
      h("span", { class: "row-bar", style: place(each, layout) }),
      span.events.map((event) =>
        h("span", { class: "row-event", title: event.name, style: { left: `${((100 * (event.at - layout.start)) / (layout.end - layout.start || 1)).toFixed(2)}%` } }),
      ),
    ),
    h(
      "span",
      { class: "row-time" },
      time(span.end - span.start),
      isCause || isNodeCall(span) ? h("span", { class: "row-share" }, ` ${percent(share)}`) : false,
      isCause ? h("span", { class: "hidden" }, " of the request, the call that it waited for") : each.onPath ? h("span", { class: "hidden" }, ", on the slowest path") : false,
    ),
  );
}

function axis(layout) {
  const length = layout.end - layout.start;
  return h(
    "div",
    { class: "axis", "aria-hidden": "true" },
    h(
      "span",
      { class: "axis-track" },
      ticks(length, 4).map((at) => h("span", { class: "axis-tick", style: { left: `${((100 * at) / (length || 1)).toFixed(2)}%` } }, time(at))),
    ),
  );
}

// detail: shown below the chosen row where there is no room beside it.
export function waterfall(app, layout, options) {
  const { rows } = layout;
  const move = (event) => {
    const at = rows.indexOf(options.chosen);
    const to = event.target.closest("button.row") && moveRow(at, event.key, rows.length);
    if (to === undefined || to === null || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    options.choose(rows[to].span);
    app.focusSpan(rows[to].span.id);
  };
  return h(
    "div",
    { class: "waterfall", onkeydown: move },
    axis(layout),
    h(
      "ol",
      { class: "rows", "aria-label": "Spans; arrow keys move" },
      rows.map((each) =>
        h("li", { key: each.span.id }, row(each, layout, options), each === options.chosen && options.detail ? options.detail : false),
      ),
    ),
  );
}
