// What someone on call should look at, in one sentence each: [{level, text, page, query}], the worst first.
import { enumName, nodeName, percent, plural, ranges, rate, seconds, times } from "./format.js";

const SHOWN_LAYERS = 2;

function mesh(topology) {
  const found = [];
  for (const { layer, experts } of (topology.missing ?? []).slice(0, SHOWN_LAYERS)) {
    found.push({ level: "bad", text: `Layer ${layer}: no ready node holds experts ${ranges(experts)}.`, page: "nodes" });
  }
  const more = (topology.missing ?? []).length - SHOWN_LAYERS;
  if (more > 0) found.push({ level: "bad", text: `${plural(more, "more layer")} without all experts.`, page: "nodes" });
  if (topology.lookup_error) {
    found.push({ level: "warn", text: `A name of --nodes cannot be looked up: ${topology.lookup_error}`, page: "nodes" });
  }
  return found;
}

// What makes a node slow, as far as it can be told from here.
export function slowness(verdict) {
  const { call, compute } = verdict;
  const often = verdict.level === "slow" ? "half of its calls take" : "one in a hundred of its calls takes";
  const first = `${often} ${seconds(call.mine)} or more, those of others ${seconds(call.others)} (${times(call.ratio)})`;
  if (!compute) return `${first}.`;
  return verdict.computesSlowly
    ? `${first}. It computes slowly: ${times(compute.ratio)} the others' time per assignment.`
    : `${first}. It computes as fast as others: look at the way to it, and at what else runs there.`;
}

function node(each, verdict) {
  const found = [];
  const query = { node: each.address };
  const name = nodeName(each);
  if (each.link !== "NODE_LINK_UP") {
    const level = each.link === "NODE_LINK_DRAINING" ? "warn" : "bad";
    const why = each.reason ? `: ${each.reason}` : "";
    found.push({ level, text: `${name} is ${enumName(each.link, "NODE_LINK_")}${why}`, page: "nodes", query });
  }
  if (verdict?.level) {
    const level = verdict.level === "slow" ? "bad" : "warn";
    const text = `${name} is ${verdict.level === "slow" ? "slow" : "late at times"}: ${slowness(verdict)}`;
    found.push({ level, text, page: "nodes", query });
  }
  if ((each.damaged ?? []).length) {
    found.push({ level: "warn", text: `${name} holds damaged experts, which are not used there.`, page: "nodes", query });
  }
  if (each.description?.state === "NODE_STATE_LOADING") {
    found.push({ level: "quiet", text: `${name} is loading experts.`, page: "nodes", query });
  }
  return found;
}

function balancing(balance) {
  const found = [];
  if (balance.summary && !balance.summary.alive) {
    found.push({ level: "bad", text: `Balancing is not alive: ${balance.summary.reason}`, page: "balance" });
  }
  const collapsed = (balance.layers ?? []).filter((layer) => layer.measures?.collapse);
  if (collapsed.length === 1) {
    const [{ layer, measures }] = collapsed;
    found.push({ level: "warn", text: `Layer ${layer}: ${measures.collapse}.`, page: "experts", query: { layer } });
  } else if (collapsed.length > 1) {
    const which = ranges(collapsed.map((layer) => layer.layer));
    found.push({ level: "warn", text: `Layers ${which} have experts that are dead or take nearly all.`, page: "balance" });
  }
  return found;
}

function requests({ failed, requests: all, retries }) {
  const found = [];
  if (failed > 0) {
    const text = `${rate(failed)} requests a second fail (${percent(failed / all)}).`;
    found.push({ level: "bad", text, page: "traces", query: { show: "failed" } });
  }
  if (retries > 0) {
    const text = `${rate(retries)} parts of batches a second are given to another node.`;
    found.push({ level: "warn", text, page: "traces", query: { kept: "retried" } });
  }
  return found;
}

const ORDER = ["bad", "warn", "quiet"];

export function findings({ topology, balance, verdicts, rates }) {
  const all = [
    ...(topology ? mesh(topology) : []),
    ...(topology?.nodes ?? []).flatMap((each) => node(each, verdicts?.get(each.address))),
    ...(rates ? requests(rates) : []),
    ...(balance ? balancing(balance) : []),
  ];
  return all.sort((a, b) => ORDER.indexOf(a.level) - ORDER.indexOf(b.level));
}
