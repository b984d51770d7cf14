// The bias of each expert as a bar from zero, and, beside an older one, what it is now.
import { h, svg } from "./dom.js";
import { table } from "./parts.js";

const HEIGHT = 120;

// `now`: only where `values` are of another epoch.
export function biasChart(values, now) {
  const all = [...values, ...(now ?? []), 0];
  const most = Math.max(...all);
  const least = Math.min(...all);
  const room = most - least || 1;
  const y = (value) => ((most - value) / room) * (HEIGHT - 8) + 4;
  const bar = (value, i, kind) => {
    const top = Math.min(y(value), y(0));
    const height = Math.max(Math.abs(y(value) - y(0)), 0.6);
    return svg("rect", { class: kind, x: i + 0.12, y: top.toFixed(2), width: 0.76, height: height.toFixed(2) });
  };
  const mark = (value, i) => svg("rect", { class: "bias-now", x: i, y: (y(value) - 0.8).toFixed(2), width: 1, height: 1.6 });
  return [
    svg(
      "svg",
      {
        class: "bias-chart",
        viewBox: `0 0 ${values.length} ${HEIGHT}`,
        preserveAspectRatio: "none",
        role: "img",
        "aria-label": `Bias of ${values.length} experts, from ${least.toPrecision(3)} to ${most.toPrecision(3)}; the table below has each.`,
      },
      svg("line", { class: "trend-base", x1: 0, x2: values.length, y1: y(0), y2: y(0), "vector-effect": "non-scaling-stroke" }),
      values.map((value, i) => bar(value, i, "bias-bar")),
      now ? now.map(mark) : [],
    ),
    h("p", { class: "aside" }, `${least.toPrecision(3)} to ${most.toPrecision(3)}, experts 0 to ${values.length - 1}${now ? "; the lines are what it is now" : ""}`),
    h("details", { key: "numbers" }, h("summary", null, "As numbers"), numbers(values, now)),
  ];
}

function numbers(values, now) {
  const columns = [
    { title: "Expert", class: "number", cell: (row) => String(row.expert) },
    { title: "Bias", class: "number", cell: (row) => row.value.toPrecision(6) },
  ];
  if (now) {
    columns.push(
      { title: "Now", class: "number", cell: (row) => now[row.expert].toPrecision(6) },
      { title: "Since then", class: "number", cell: (row) => (now[row.expert] - row.value).toPrecision(3) },
    );
  }
  return table("Bias by expert", columns, values.map((value, expert) => ({ expert, value })), {});
}
