// Small trends, in SVG. What was not observed leaves a gap.
import { h, svg } from "./dom.js";

const WIDTH = 240;

function pathOf(points, from, to, most, height) {
  let path = "";
  let drawing = false;
  for (const { at, value } of points) {
    if (!Number.isFinite(value)) {
      drawing = false;
      continue;
    }
    const x = ((at - from) / (to - from || 1)) * WIDTH;
    const y = height - 2 - (value / (most || 1)) * (height - 4);
    path += `${drawing ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    // A point between two gaps is seen too.
    if (!drawing) path += `h0.1`;
    drawing = true;
  }
  return path;
}

// lines: [{points: [{at, value}], class}], all on one scale from 0 to the largest value, which `format` writes.
export function trend(lines, { label, height = 36, format } = {}) {
  const all = lines.flatMap((line) => line.points);
  if (all.length < 2) {
    return h("div", { class: "trend trend-empty", style: { "min-height": `${height}px` } }, "drawn after some reads");
  }
  const most = Math.max(...all.map((point) => point.value).filter(Number.isFinite), 0);
  const first = Math.min(...all.map((point) => point.at));
  const last = Math.max(...all.map((point) => point.at));
  return h("div", { class: "trend-box" }, drawing(lines, { label, height, first, last, most }), format ? h("span", { class: "trend-most" }, format(most)) : false);
}

function drawing(lines, { label, height, first, last, most }) {
  return svg(
    "svg",
    {
      class: "trend",
      viewBox: `0 0 ${WIDTH} ${height}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": label,
      style: { height: `${height}px` },
    },
    svg("path", { class: "trend-base", d: `M0 ${height - 1.5}H${WIDTH}` }),
    lines.map((line) => svg("path", { class: `trend-line ${line.class}`, d: pathOf(line.points, first, last, most, height) })),
  );
}

// A bar for the median, to where a thin one goes on to the 99th percentile.
export function latencyBar({ p50, p99 }, most, slow) {
  const share = (value) => `${Math.min(100, (100 * (value || 0)) / (most || 1)).toFixed(2)}%`;
  return h(
    "div",
    { class: slow ? "latency-bar latency-slow" : "latency-bar", "aria-hidden": "true" },
    h("div", { class: "latency-p99", style: { width: share(p99) } }),
    h("div", { class: "latency-p50", style: { width: share(p50) } }),
  );
}

// Parts of a whole, side by side: [{label, share, class}].
export function stacked(parts, label) {
  return h(
    "div",
    { class: "stacked", role: "img", "aria-label": label },
    parts
      .filter((part) => part.share > 0)
      .map((part) => h("div", { class: `stacked-part ${part.class}`, style: { "flex-grow": String(part.share) } })),
  );
}
