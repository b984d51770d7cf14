// How load is balanced: layers, the bias of one, and what changed when.
import { h } from "./dom.js";
import { ago, clock, count, enumName, percent, plural } from "./format.js";
import { biasChart } from "./bias_chart.js";
import { definition, empty, missing, note, panel, pill, table, trouble } from "./parts.js";
import { href } from "./route.js";

const SHOWN_COLLAPSES = 4;
const CALM = ["frozen", "stepped", "paused", "too few tokens"];

function summary(balance) {
  const told = balance.summary;
  const follower = told.role === "BALANCE_ROLE_FOLLOWER";
  return panel(
    "Who decides",
    { id: "summary", aside: told.alive ? pill("good", "alive") : pill("bad", "not alive") },
    told.alive ? false : note("bad", told.reason),
    h(
      "dl",
      { class: "facts" },
      definition("This router", follower ? `follows ${told.authority}` : `is the ${enumName(told.role, "BALANCE_ROLE_")}`),
      definition("Epoch", count(balance.epoch)),
      definition("Term", told.term),
      definition("Last change", ago(told.since_change_ms)),
      definition(follower ? "Authority heard" : "Load looked at", ago(told.since_tick_ms)),
    ),
    (balance.routers ?? []).length > 1 ? routers(balance.routers) : false,
  );
}

function routers(list) {
  return table(
    "Routers that report",
    [
      { title: "Router", cell: (each) => `${each.router_id}${each.self ? " (this one)" : ""}` },
      { title: "Tokens", class: "number", cell: (each) => count(each.tokens) },
      { title: "Last report", cell: (each) => (each.self ? "-" : ago(each.age_ms)) },
      { title: "Epoch", class: "number", cell: (each) => count(each.epoch) },
      { title: "", cell: (each) => (each.gone ? pill("bad", "gone") : "") },
    ],
    list,
    { keyOf: (each) => each.router_id },
  );
}

function share(part, all) {
  return Number(all) ? percent(Number(part) / Number(all)) : "-";
}

function layers(app, balance, chosen) {
  const link = (layer) => href("balance", "", { ...app.route.query, layer: layer.layer });
  const columns = [
    { title: "Layer", class: "number", cell: (each) => h("a", { href: link(each), "aria-current": each.layer === chosen ? "true" : null }, String(each.layer)) },
    { title: "MaxVio", class: "number", cell: (each) => each.max_violation.toFixed(2) },
    { title: "Policy", cell: (each) => (each.not_steerable ? "not steerable" : `${enumName(each.policy.rule, "BALANCE_RULE_")}${each.policy.paused ? ", paused" : ""}`) },
    { title: "Last step", cell: (each) => pill(CALM.includes(each.outcome) ? "quiet" : "warn", each.outcome || "-") },
    { title: "Bias distance", class: "number", cell: (each) => (each.at_checkpoint ? "0" : each.bias_distance.toPrecision(2)) },
    { title: "Changed tokens", class: "number", cell: (each) => share(each.changed_tokens, each.compared_tokens) },
    { title: "Budget", class: "number", cell: (each) => percent(each.policy.quality_budget) },
    { title: "Tokens", class: "number", cell: (each) => count(each.tokens) },
    { title: "Dead", class: "number", cell: (each) => String(each.measures?.dead_experts ?? "-") },
  ];
  return panel(
    "Layers",
    { id: "layers", aside: h("span", { class: "aside" }, "of the last 10 s") },
    table("Balance by layer", columns, balance.layers, {
      keyOf: (each) => String(each.layer),
      rowClass: (each) => (each.layer === chosen ? "is-chosen" : ""),
    }),
  );
}

function collapse(balance) {
  const found = balance.layers.filter((each) => each.measures?.collapse);
  if (found.length === 0) return false;
  const rest = found.length - SHOWN_COLLAPSES;
  return note(
    "warn",
    h("ul", null, found.slice(0, SHOWN_COLLAPSES).map((each) => h("li", null, `Layer ${each.layer}: ${each.measures.collapse}`))),
    rest > 0 ? h("p", null, `${plural(rest, "more layer")}; the column "Dead" has all.`) : false,
  );
}

function bias(app, balance, chosen) {
  const layer = balance.layers.find((each) => each.layer === chosen);
  const { epoch } = app.route.query;
  const now = app.data("bias");
  const then = epoch ? app.data("bias_then") : now;
  const aside = epoch
    ? h("a", { href: href("balance", "", { layer: chosen }) }, "back to now")
    : h("span", { class: "aside" }, "choose an epoch below to compare");
  const of = (source) => source.value?.bias.layers.find((each) => each.layer === chosen)?.values;
  return panel(
    epoch ? `Bias of layer ${chosen} at epoch ${epoch}` : `Bias of layer ${chosen} now`,
    { id: "bias", aside },
    layer?.not_steerable ? note("quiet", `This layer has no bias to steer: ${layer.not_steerable}`) : false,
    missing(then, "the bias") ?? (of(then) ? biasChart(of(then), epoch ? of(now) : undefined) : empty("This layer has no bias.")),
  );
}

function history(app, chosen) {
  const source = app.data("epochs");
  const instead = missing(source, "the history of epochs");
  const epochs = [...(source.value?.epochs ?? [])].reverse();
  const { epoch } = app.route.query;
  return panel(
    "Epochs",
    { id: "epochs", aside: h("span", { class: "aside" }, `the last ${plural(epochs.length, "change")}`) },
    instead,
    !instead && epochs.length === 0 ? empty("Nothing has changed since the router started.") : false,
    h(
      "ol",
      { class: "epochs" },
      epochs.map((each) =>
        h(
          "li",
          { key: each.epoch },
          h(
            "a",
            { href: href("balance", "", { layer: chosen, epoch: each.epoch }), "aria-current": each.epoch === epoch ? "true" : null },
            h("b", null, `epoch ${each.epoch}`),
            h("span", { class: "aside" }, clock(each.at_unix_ms)),
            h("span", null, each.changes.join("; ") || "-"),
          ),
        ),
      ),
    ),
  );
}

export function balance(app) {
  const title = h("h1", { tabindex: "-1" }, "Balance");
  const source = app.data("balance");
  const instead = missing(source, "how load is balanced");
  if (instead) return [title, instead];
  const told = source.value.balance;
  if (!told.layers?.length) return [title, summary(told), empty("There is no layer to balance.")];
  const asked = Number(app.route.query.layer);
  const chosen = told.layers.some((each) => each.layer === asked) ? asked : told.layers[0].layer;
  return [
    title,
    trouble(source),
    collapse(told),
    layers(app, told, chosen),
    bias(app, told, chosen),
    h("div", { class: "columns" }, history(app, chosen), summary(told)),
  ];
}
