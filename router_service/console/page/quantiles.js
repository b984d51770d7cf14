// What happened between two reads of a histogram or counter.

// Of a counter that began again (the router was restarted) all it has now is new.
export function increase(before, after) {
  if (after === undefined) return undefined;
  return before === undefined || after < before ? after : after - before;
}

// Only what was observed between the two reads.
export function difference(before, after) {
  if (!after) return undefined;
  if (!before || after.count < before.count || before.le.length !== after.le.length) return after;
  return {
    le: after.le,
    counts: after.counts.map((value, i) => value - before.counts[i]),
    sum: after.sum - before.sum,
    count: after.count - before.count,
  };
}

// As Prometheus does: linear within the bucket. Undefined where nothing was observed; what lies beyond the
// last finite bound is taken for that bound.
export function quantile(histogram, q) {
  if (!histogram || !(histogram.count > 0)) return undefined;
  const rank = q * histogram.count;
  let below = 0;
  let bound = 0;
  for (let i = 0; i < histogram.le.length; ++i) {
    const upper = histogram.le[i];
    if (histogram.counts[i] >= rank && histogram.counts[i] > below) {
      if (!Number.isFinite(upper)) return bound;
      return bound + ((upper - bound) * (rank - below)) / (histogram.counts[i] - below);
    }
    below = histogram.counts[i];
    if (Number.isFinite(upper)) bound = upper;
  }
  return bound;
}

export function mean(histogram) {
  return histogram && histogram.count > 0 ? histogram.sum / histogram.count : undefined;
}
