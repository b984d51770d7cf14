// What one span says: times, status, attributes, events, and links that lead to other traces.
import { h } from "./dom.js";
import { duration, percent, plural } from "./format.js";
import { definition, note, pill } from "./parts.js";
import { href } from "./route.js";
import { shortName } from "./spans.js";

const time = (nanoseconds) => duration(nanoseconds / 1000);
const SHOWN_LINKS = 20;

function facts(attributes) {
  return h("dl", { class: "attributes" }, Object.entries(attributes).map(([name, value]) => definition(name, value)));
}

function status(span) {
  const code = span.attributes["rpc.status_code"];
  if (span.failed) return pill("bad", "failed");
  return code && code !== "OK" ? pill("warn", code) : pill("good", code ?? "ok");
}

// The trace of the batch and those of its requests name each other.
function linkLabel(link, span) {
  const tokens = link.attributes["expertmesh.tokens"];
  if (span.name === "expertmesh.batch") return `Request ${link.traceId.slice(0, 8)}${tokens ? `, ${plural(tokens, "token")}` : ""}`;
  return span.attributes["expertmesh.batch.id"] === link.traceId ? `Its batch, ${link.traceId.slice(0, 8)}` : `Trace ${link.traceId.slice(0, 8)}`;
}

function links(app, span) {
  if (span.links.length === 0 && span.droppedLinks === 0) return false;
  const all = app.ui.allLinksOf === span.id;
  const shown = all ? span.links : span.links.slice(0, SHOWN_LINKS);
  const rest = span.links.length - shown.length;
  return [
    h("h3", null, span.name === "expertmesh.batch" ? `Requests of this batch (${span.links.length + span.droppedLinks})` : "Linked"),
    h(
      "div",
      { class: "links" },
      shown.map((link) =>
        h(
          "button",
          {
            type: "button",
            key: `${link.traceId}-${link.spanId}`,
            class: "link-button",
            "data-link": link.traceId,
            onclick: () => app.go(href("traces", link.traceId, { span: link.spanId })),
          },
          linkLabel(link, span),
        ),
      ),
      rest > 0
        ? h("button", { type: "button", key: "rest", onclick: () => app.show({ allLinksOf: span.id }) }, `${rest} more`)
        : false,
    ),
    span.droppedLinks ? h("p", { class: "quiet" }, `${plural(span.droppedLinks, "more link")} not kept: a span has 128 at most. Each such request still names this batch.`) : false,
  ];
}

function events(span, root) {
  if (span.events.length === 0) return false;
  return [
    h("h3", null, "Events"),
    h(
      "ol",
      { class: "events" },
      span.events.map((event) => h("li", null, h("b", null, shortName(event.name)), ` after ${time(event.at - root.start)}`, facts(event.attributes))),
    ),
  ];
}

export function spanDetail(app, row, root) {
  const { span } = row;
  const total = root.end - root.start || 1;
  const own = span.end - span.start - row.children.reduce((sum, child) => sum + Math.max(0, child.end - child.start), 0);
  return h(
    "section",
    { class: "panel detail", "aria-label": "The chosen span", key: "detail" },
    h("h2", null, shortName(span.name)),
    h("p", null, status(span), row.onPath ? pill("quiet", "on the slowest path") : false, span.shared ? pill("quiet", "shared by its batch") : false),
    span.message ? note("bad", span.message) : false,
    h(
      "dl",
      { class: "facts" },
      definition("Service", `${span.service}${span.kind ? `, ${span.kind}` : ""}`),
      definition("Took", `${time(span.end - span.start)}, ${percent((span.end - span.start) / total)} of the request`),
      definition("Began", `${time(span.start - root.start)} after the request`),
      row.children.length === 1 && own > 0 ? definition("Outside of its child", time(own)) : false,
    ),
    links(app, span),
    h("h3", null, "Attributes"),
    Object.keys(span.attributes).length ? facts(span.attributes) : h("p", { class: "quiet" }, "It has none."),
    events(span, root),
    h("details", { key: "process" }, h("summary", null, `Process: ${span.service}`), facts(span.process)),
    h("p", { class: "aside" }, "span ", h("code", null, span.id)),
  );
}
