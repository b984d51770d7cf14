// Why was it late: a request's time, divided among what it waited for.
import { isNodeCall } from "./spans.js";

// A call is the one that the others waited for when it takes so many times as long as the next.
const MUCH_LONGER = 2;

const length = (row) => row.span.end - row.span.start;

// The rows below rows[at], itself included.
function subtree(rows, at) {
  let end = at + 1;
  while (end < rows.length && rows[end].depth > rows[at].depth) ++end;
  return rows.slice(at, end);
}

// The requests (or the batch) of a trace, each as its rows, the longest first. One trace may have many: one for each
// layer and token of a text, say.
export function requestsOf(rows) {
  const requests = [];
  for (const row of rows) {
    if (row.depth === 0) requests.push([]);
    requests[requests.length - 1].push(row);
  }
  return requests.sort((a, b) => length(b[0]) - length(a[0]));
}

// The rows of the request that a span belongs to; without a span, of the longest.
export function subject(rows, spanId) {
  const requests = requestsOf(rows);
  const named = spanId && requests.find((request) => request.some((row) => row.span.id === spanId));
  return named || requests[0] || [];
}

function told(span, name) {
  return Number(span.attributes[`expertmesh.${name}_us`] ?? 0) * 1000;
}

const waitedIn = (rows) => rows.reduce((sum, row) => sum + row.waited, 0);

// Parts of the time of a subject: [{what, node, time, share, spanId}], the longest first; times in nanoseconds.
export function partsOf(rows) {
  const dispatch = rows.find((row) => row.span.attributes["expertmesh.calls"] !== undefined);
  if (!dispatch) return [];
  const total = length(rows[0]);
  const parts = [];
  const add = (what, time, span, node = "") => {
    if (time > 0 && total > 0) parts.push({ what, node, time, share: time / total, spanId: span.id });
  };
  // A batch begins when it leaves the queue.
  if (dispatch !== rows[0]) add("queue", told(dispatch.span, "queue"), dispatch.span);
  const route = told(dispatch.span, "route");
  add("route", route, dispatch.span);
  rows.forEach((row, at) => {
    if (isNodeCall(row.span) && row.onPath) {
      add("node", waitedIn(subtree(rows, at)), row.span, row.span.attributes["expertmesh.node"]);
    }
  });
  add("router", dispatch.waited - route, dispatch.span);
  add("combine", told(dispatch.span, "combine"), dispatch.span);
  add("other", total - parts.reduce((sum, part) => sum + part.time, 0), rows[0].span);
  return parts.sort((a, b) => b.time - a.time);
}

// The call that the batch waited for, compared with its other calls and with what the node says it did in that
// time; undefined where there is none.
export function awaitedCall(rows) {
  const calls = rows.filter((row) => isNodeCall(row.span));
  const awaited = calls.filter((row) => row.onPath).sort((a, b) => length(b) - length(a))[0];
  if (!awaited) return undefined;
  const others = calls.filter((row) => row !== awaited).map(length);
  const next = others.length ? Math.max(...others) : undefined;
  const within = subtree(rows, rows.indexOf(awaited)).slice(1).map((row) => row.span);
  const spent = (name) =>
    within.filter((span) => span.name === name).reduce((sum, span) => sum + span.end - span.start, 0);
  const server = within.find((span) => span.kind === "server");
  return {
    span: awaited.span,
    node: awaited.span.attributes["expertmesh.node"],
    time: length(awaited),
    next,
    standsOut: next === undefined || length(awaited) >= MUCH_LONGER * next,
    queue: spent("expertmesh.node.queue"),
    compute: spent("expertmesh.node.compute"),
    away: server ? length(awaited) - (server.end - server.start) : undefined,
  };
}
