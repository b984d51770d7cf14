// Which node is much slower than the others, and whether it computes slowly or is reached slowly.

// Fewer calls say nothing.
const LEAST_CALLS = 3;
// The slowest in a hundred of fewer is but the slowest.
const LEAST_CALLS_LATE = 200;
// Of calls, and of computing: so many times as long as the others' median.
const MUCH_SLOWER = 3;
const SLOWER_COMPUTING = 2;
// What is quicker than this is never called slow, in seconds.
const LEAST_SECONDS = 0.001;

function median(values) {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  if (sorted.length === 0) return undefined;
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function ratioToOthers(figures, address, pick) {
  const mine = pick(figures.get(address));
  const others = median([...figures].filter(([other]) => other !== address).map(([, each]) => pick(each)));
  return Number.isFinite(mine) && others > 0 ? { mine, others, ratio: mine / others } : undefined;
}

// Microseconds of the node's clock per assignment that it computed between the two topologies.
export function computePerAssignment(before, after) {
  const assignments = Number(after.computed_assignments) - Number(before?.computed_assignments ?? 0);
  const time = Number(after.compute_us) - Number(before?.compute_us ?? 0);
  // After a restart of the router counts begin again.
  if (assignments < 0 || time < 0) return computePerAssignment(undefined, after);
  return assignments > 0 ? time / assignments : undefined;
}

// figures: a map from addresses to {call: {p50, p99, count}, perAssignment}. Gives, for each address, {level:
// "slow" | "late" | "", call, compute} where the last two compare it with the others' median.
export function judgeNodes(figures) {
  const usable = new Map([...figures].filter(([, each]) => each.call?.count >= LEAST_CALLS));
  const verdicts = new Map();
  for (const address of figures.keys()) {
    const compute = ratioToOthers(figures, address, (each) => each?.perAssignment);
    const usual = usable.has(address) ? ratioToOthers(usable, address, (each) => each.call.p50) : undefined;
    const worst = usable.has(address) ? ratioToOthers(usable, address, (each) => each.call.p99) : undefined;
    const exceeds = (found) => found && found.ratio >= MUCH_SLOWER && found.mine >= LEAST_SECONDS;
    let level = "";
    if (exceeds(usual)) level = "slow";
    else if (exceeds(worst) && figures.get(address).call.count >= LEAST_CALLS_LATE) level = "late";
    verdicts.set(address, {
      level,
      call: level === "slow" ? usual : worst,
      compute,
      computesSlowly: Boolean(compute && compute.ratio >= SLOWER_COMPUTING),
    });
  }
  return verdicts;
}
