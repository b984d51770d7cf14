// Pieces that several views are made of.
import { h } from "./dom.js";
import { enumName, seconds } from "./format.js";
import { href } from "./route.js";

export function panel(title, properties, ...children) {
  const { id, aside, class: extra = "", key } = properties ?? {};
  return h(
    "section",
    { class: `panel ${extra}`, "aria-labelledby": id, key: key ?? id },
    h("div", { class: "panel-head" }, h("h2", { id }, title), aside),
    ...children,
  );
}

// level: good, warn, bad, or quiet. The text alone says it; the colour and the mark repeat it.
export function pill(level, text) {
  return h("span", { class: `pill pill-${level}` }, h("span", { class: "pill-mark", "aria-hidden": "true" }), text);
}

export function note(level, ...children) {
  return h("div", { class: `note note-${level}` }, ...children);
}

export function empty(title, ...advice) {
  return h("div", { class: "empty" }, h("p", { class: "empty-title" }, title), advice.map((each) => each && h("p", null, each)));
}

// What to show instead of a source that has no value; undefined when it has one.
export function missing(source, what) {
  if (source.value !== undefined) return undefined;
  if (source.error) return note("warn", h("strong", null, `The router cannot tell ${what}. `), source.error);
  return h("div", { class: "loading" }, `Reading ${what} ...`);
}

// An error beside a value that was read before it.
export function trouble(source) {
  return source.value !== undefined && source.error ? note("warn", source.error) : false;
}

// Links of which one is where we are: [{label, href, current}].
export function choice(label, options) {
  return h(
    "nav",
    { class: "choice", "aria-label": label },
    options.map(({ label: text, href, current }) =>
      h("a", { href, "aria-current": current ? "true" : null, key: text }, text),
    ),
  );
}

// columns: [{title, class, cell(row)}]. On narrow screens the box scrolls sideways, not the page.
export function table(caption, columns, rows, { keyOf, rowClass } = {}) {
  return h(
    "div",
    { class: "table-box", tabindex: "0", role: "region", "aria-label": caption },
    h(
      "table",
      null,
      h("caption", { class: "hidden" }, caption),
      h("thead", null, h("tr", null, columns.map((column) => h("th", { scope: "col", class: column.class }, column.title)))),
      h(
        "tbody",
        null,
        rows.map((row, i) =>
          h(
            "tr",
            { key: keyOf ? keyOf(row) : String(i), class: rowClass?.(row) },
            columns.map((column, place) =>
              place === 0
                ? h("th", { scope: "row", class: column.class }, column.cell(row))
                : h("td", { class: column.class }, column.cell(row)),
            ),
          ),
        ),
      ),
    ),
  );
}

// The way from a latency to a trace that had it; nothing where none was sampled.
export function exemplarLink(exemplar) {
  if (!exemplar) return false;
  return h("a", { class: "exemplar", href: href("traces", exemplar.traceId) }, `trace of ${seconds(exemplar.value)}`);
}

export function definition(term, ...values) {
  return [h("dt", null, term), h("dd", null, ...values)];
}

const LINKS = {
  NODE_LINK_UP: "good",
  NODE_LINK_DRAINING: "warn",
  NODE_LINK_DOWN: "bad",
  NODE_LINK_REFUSED: "bad",
  NODE_LINK_EJECTED: "bad",
};

export function linkPill(node) {
  return pill(LINKS[node.link] ?? "quiet", enumName(node.link, "NODE_LINK_"));
}
