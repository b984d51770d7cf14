// The cause of a request's time in sentences: [{text, node, spanId, main}], the weightiest first.
import { awaitedCall, partsOf } from "./cause.js";
import { duration, percent, times } from "./format.js";

// Parts below this share are not worth a sentence.
const LEAST_SHARE = 0.15;

const time = (nanoseconds) => duration(nanoseconds / 1000);

function ofCall(part, call) {
  const much = call.standsOut && call.next ? `, ${times(call.time / call.next)} as long as the next slowest call` : "";
  const first = `was what it waited for: ${time(part.time)}, ${percent(part.share)} of the time${much}.`;
  if (call.away === undefined) return `${first} The call failed: ${call.span.message || "see the span"}.`;
  const itself = `It says that the rows waited ${time(call.queue)} in its queue and were computed in ${time(call.compute)}`;
  const where =
    call.away > call.queue + call.compute
      ? `; the other ${time(call.away)} passed on the way there and back, or in what lies between.`
      : ".";
  return `${first} ${itself}${where}`;
}

const SENTENCES = {
  queue: (part) => `${time(part.time)}, ${percent(part.share)} of the time, it waited in the queue for batches of its layer that came before it.`,
  route: (part) => `Gathering rows and choosing experts took ${time(part.time)}, ${percent(part.share)} of the time.`,
  combine: (part) => `Summing the partials and answering took ${time(part.time)}, ${percent(part.share)} of the time.`,
  router: (part) => `${time(part.time)}, ${percent(part.share)} of the time, was the router's own between routing and the last answer: shared experts, sending and receiving, or waiting for a core.`,
  other: (part) => `${time(part.time)}, ${percent(part.share)} of the time, is in no part that is measured.`,
};

export function explain(rows) {
  const call = awaitedCall(rows);
  return partsOf(rows)
    .filter((part) => part.share >= LEAST_SHARE)
    .map((part, i) => ({
      node: part.node,
      spanId: part.spanId,
      main: i === 0,
      text:
        part.what !== "node"
          ? SENTENCES[part.what](part)
          : part.spanId === call.span.id
            ? ofCall(part, call)
            : `also was waited for: ${time(part.time)}, ${percent(part.share)} of the time.`,
    }));
}
