// The last reads of GET /metrics, and what they say of a span of time. Times are in milliseconds.
import { histograms, parseMetrics, total } from "./metrics_text.js";
import { difference, increase, mean, quantile } from "./quantiles.js";

const ROUTER = "expertmesh_router_";
const WANTED = new RegExp(
  `^${ROUTER}(stage_duration_seconds|queue_duration_seconds|request_duration_seconds|node_call_duration_seconds|` +
    "failover_stall_seconds|batch_tokens|requests_total|tokens_total|tokens_in_flight|retries_total|" +
    "planned_tokens_total|token_transfers_total|trace_dropped_batches_total)",
);

export const STAGES = ["queue", "route", "plan", "experts", "combine"];

export function read(text) {
  const samples = parseMetrics(text, (name) => WANTED.test(name));
  const stages = histograms(samples, `${ROUTER}stage_duration_seconds`, "stage");
  stages.set("queue", histograms(samples, `${ROUTER}queue_duration_seconds`).get(""));
  stages.set("request", histograms(samples, `${ROUTER}request_duration_seconds`).get(""));
  stages.set("stall", histograms(samples, `${ROUTER}failover_stall_seconds`).get(""));
  return {
    stages,
    calls: histograms(samples, `${ROUTER}node_call_duration_seconds`, "node"),
    counters: {
      tokens: total(samples, `${ROUTER}tokens_total`),
      requests: total(samples, `${ROUTER}requests_total`),
      failed: total(samples, `${ROUTER}requests_total`, (labels) => labels.code !== "OK") ?? 0,
      retries: total(samples, `${ROUTER}retries_total`),
      batches: stages.get("experts")?.count,
    },
    tokensInFlight: total(samples, `${ROUTER}tokens_in_flight`),
  };
}

export class History {
  // Keeps reads of the last `keepMs`, no two closer than `apartMs`, so that it stays small.
  constructor(keepMs = 310_000, apartMs = 900) {
    this.keepMs = keepMs;
    this.apartMs = apartMs;
    this.reads = [];
  }

  add(at, text) {
    const last = this.reads[this.reads.length - 1];
    if (last && at - last.at < this.apartMs) this.reads.pop();
    this.reads.push({ at, ...read(text) });
    while (this.reads.length > 2 && this.reads[0].at < at - this.keepMs) this.reads.shift();
  }

  get last() {
    return this.reads[this.reads.length - 1];
  }

  // The oldest read that is not older than `ms` before the last; of one read alone, nothing.
  from(ms) {
    return this.reads.find((each) => each !== this.last && each.at >= this.last.at - ms);
  }

  // A second, of late; undefined before there are two reads.
  rate(counter, ms) {
    const before = this.last && this.from(ms);
    if (!before) return undefined;
    const grown = increase(before.counters[counter], this.last.counters[counter]);
    return grown === undefined ? undefined : (grown * 1000) / (this.last.at - before.at);
  }

  // {p50, p99, mean, count, perSecond} in seconds, of a stage ("stages") or of calls of a node ("calls").
  latency(kind, key, ms) {
    const before = this.last && this.from(ms);
    if (!before) return undefined;
    const late = difference(before[kind].get(key), this.last[kind].get(key));
    if (!late) return undefined;
    return {
      p50: quantile(late, 0.5),
      p99: quantile(late, 0.99),
      mean: mean(late),
      sum: late.sum,
      count: late.count,
      perSecond: (late.count * 1000) / (this.last.at - before.at),
    };
  }

  // The trace of the longest that was sampled within `ms` before the newest: {traceId, value, at}. Times are of the
  // router's clock, which need not be this one's.
  exemplar(kind, key, ms) {
    const all = this.last?.[kind].get(key)?.exemplars ?? [];
    const newest = Math.max(...all.map((each) => each.at));
    const late = all.filter((each) => each.at >= newest - ms);
    return late.sort((a, b) => b.value - a.value)[0];
  }

  // A value for each pair of neighbouring reads within `ms`: [{at, value}].
  trend(ms, value) {
    const points = [];
    const first = this.last ? this.last.at - ms : 0;
    for (let i = 1; i < this.reads.length; ++i) {
      if (this.reads[i].at >= first) {
        points.push({ at: this.reads[i].at, value: value(this.reads[i - 1], this.reads[i]) });
      }
    }
    return points;
  }

  rateTrend(counter, ms) {
    return this.trend(ms, (before, after) => {
      const grown = increase(before.counters[counter], after.counters[counter]);
      return grown === undefined ? undefined : (grown * 1000) / (after.at - before.at);
    });
  }

  quantileTrend(kind, key, q, ms) {
    return this.trend(ms, (before, after) =>
      quantile(difference(before[kind].get(key), after[kind].get(key)), q),
    );
  }
}
