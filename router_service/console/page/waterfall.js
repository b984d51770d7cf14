// The tree of a trace as rows, and which spans its end waited for.

// Rows in the order of a walk through the tree: [{span, depth, children, onPath, waited}]. Spans whose parent is
// not here, such as a caller's, are roots. `waited`: nanoseconds of the root's time that this very span is what
// was waited for.
export function layout(spans) {
  const byId = new Map(spans.map((span) => [span.id, span]));
  const children = new Map();
  const roots = [];
  for (const span of spans) {
    if (span.parentId !== span.id && byId.has(span.parentId)) {
      if (!children.has(span.parentId)) children.set(span.parentId, []);
      children.get(span.parentId).push(span);
    } else {
      roots.push(span);
    }
  }
  const byStart = (a, b) => a.start - b.start || b.end - a.end;
  const rows = [];
  const visit = (span, depth) => {
    const below = (children.get(span.id) ?? []).sort(byStart);
    rows.push({ span, depth, children: below, onPath: false, waited: 0 });
    below.forEach((child) => visit(child, depth + 1));
  };
  roots.sort(byStart).forEach((root) => visit(root, 0));
  const rowOf = new Map(rows.map((row) => [row.span.id, row]));
  roots.forEach((root) => markPath(rowOf, rowOf.get(root.id), root.start, root.end));
  return { rows };
}

// From its end backwards a span waits for the child that ended last, before that one's start for the one that
// ended last until then, and so on. What no child covers is its own. Only the time within [from, to] counts:
// clocks of processes differ, and a child may seem to end after its parent.
function markPath(rowOf, row, from, to) {
  row.onPath = true;
  let until = to;
  const below = [...row.children].sort((a, b) => b.end - a.end);
  for (const child of below) {
    const end = Math.min(child.end, until);
    const start = Math.max(child.start, from);
    if (end <= start) continue;
    row.waited += until - end;
    markPath(rowOf, rowOf.get(child.id), start, end);
    until = start;
  }
  row.waited += Math.max(0, until - from);
}

// Round times, about `most` of them, for an axis of this length.
export function ticks(length, most = 5) {
  if (!(length > 0)) return [0];
  const rough = length / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough);
  const found = [];
  for (let at = 0; at <= length * 1.0001; at += step) found.push(at);
  return found;
}

// The row that an arrow key leads to.
export function moveRow(index, key, size) {
  const to = { ArrowUp: index - 1, ArrowDown: index + 1, Home: 0, End: size - 1 }[key];
  return to === undefined ? undefined : Math.max(0, Math.min(size - 1, to));
}
