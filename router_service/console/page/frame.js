// What surrounds every view: name, navigation, and a banner while the router does not answer.
import { h, svg } from "./dom.js";
import { clock, seconds } from "./format.js";
import { pill } from "./parts.js";
import { href, PAGES } from "./route.js";

function mark() {
  const dot = (cx, cy, r, kind) => svg("circle", { cx, cy, r, class: kind });
  return svg(
    "svg",
    { class: "mark", viewBox: "0 0 32 32", "aria-hidden": "true" },
    svg("path", { d: "M7 16 16 6 25 16 16 26ZM7 16h18", class: "mark-lines" }),
    dot(7, 16, 3.4, "mark-dot"),
    dot(16, 6, 3.4, "mark-dot"),
    dot(16, 26, 3.4, "mark-dot"),
    dot(25, 16, 4.4, "mark-hot"),
  );
}

function state(app) {
  const { value } = app.data("topology");
  if (app.poller.unreachable) return pill("bad", "no answer");
  if (!value) return pill("quiet", "reading");
  return value.topology.ready ? pill("good", "ready") : pill("bad", "not ready");
}

export function head(app) {
  const { page } = app.route;
  const family = app.data("model").value?.family;
  return [
    h(
      "div",
      { class: "bar" },
      h("a", { class: "brand", href: href("overview") }, mark(), h("span", null, "expertmesh")),
      h("span", { class: "where" }, location.host, family ? ` · ${family}` : ""),
      h("span", { class: "bar-state" }, state(app)),
      h("button", { type: "button", class: "pause", "aria-pressed": app.ui.paused ? "true" : "false", onclick: app.togglePause }, app.ui.paused ? "Go on" : "Pause"),
    ),
    h(
      "nav",
      { class: "tabs", "aria-label": "Pages" },
      PAGES.map((each) => h("a", { href: href(each), "aria-current": each === page ? "page" : null }, each[0].toUpperCase() + each.slice(1))),
    ),
  ];
}

export function banner(app) {
  const { poller } = app;
  if (app.ui.paused) return h("div", { class: "banner banner-quiet" }, "Paused: nothing is read again until you go on.");
  if (!poller.unreachable) return [];
  const since = poller.lastAnswer
    ? `What is shown is from ${clock(poller.lastAnswer)}.`
    : "Nothing was read yet.";
  const wait = Math.max(0, Math.ceil((poller.nextTry - Date.now()) / 1000));
  return h(
    "div",
    { class: "banner banner-bad" },
    h("p", null, h("strong", null, "The router does not answer. "), `${since} Is it running, and is its --metrics-listen reachable from here? `),
    h("p", null, wait > 0 ? h("span", { "aria-hidden": "true" }, `Tried again in ${seconds(wait)}. `) : "Trying. ", h("button", { type: "button", onclick: app.retry }, "Try now")),
  );
}
