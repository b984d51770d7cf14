// The text forms of Prometheus and OpenMetrics, as far as they are needed here: samples by name, with exemplars.

function unescapeLabel(text) {
  return text.replace(/\\(.)/g, (_, character) => (character === "n" ? "\n" : character));
}

function parseLabels(text) {
  const labels = {};
  for (const [, name, value] of text.matchAll(/([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"/g)) {
    labels[name] = unescapeLabel(value);
  }
  return labels;
}

function parseValue(text) {
  if (text === "+Inf") return Infinity;
  return text === "-Inf" ? -Infinity : Number(text);
}

// What follows a sample: # {trace_id="..."} value time
function parseExemplar(text) {
  const found = / # \{(.*)\} (\S+)(?: (\S+))?$/.exec(text);
  const traceId = found && parseLabels(found[1]).trace_id;
  return traceId ? { traceId, value: Number(found[2]), at: Number(found[3] ?? 0) * 1000 } : undefined;
}

// A map from each name to [{labels, value, exemplar}]; `wanted(name)` says which names are of interest.
export function parseMetrics(text, wanted = () => true) {
  const samples = new Map();
  for (const line of text.split("\n")) {
    if (line === "" || line[0] === "#") continue;
    const name = /^[A-Za-z_:][\w:]*/.exec(line)?.[0];
    if (!name || !wanted(name)) continue;
    let rest = line.slice(name.length);
    let labels = {};
    if (rest[0] === "{") {
      const inside = /^\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\}/.exec(rest);
      if (!inside) continue;
      labels = parseLabels(inside[1]);
      rest = rest.slice(inside[0].length);
    }
    const value = parseValue(rest.trim().split(/\s/)[0]);
    if (Number.isNaN(value)) continue;
    if (!samples.has(name)) samples.set(name, []);
    samples.get(name).push({ labels, value, exemplar: parseExemplar(rest) });
  }
  return samples;
}

// Sum of the samples of a name; undefined where there are none.
export function total(samples, name, matches = () => true) {
  const found = (samples.get(name) ?? []).filter((sample) => matches(sample.labels));
  return found.length === 0 ? undefined : found.reduce((sum, sample) => sum + sample.value, 0);
}

// The histograms of a metric, by the value of one label ("" without one): {le, counts, sum, count, exemplars} with
// cumulative counts.
export function histograms(samples, name, label) {
  const found = new Map();
  const of = (labels) => {
    const key = label ? labels[label] : "";
    if (!found.has(key)) found.set(key, { le: [], counts: [], sum: 0, count: 0, exemplars: [] });
    return found.get(key);
  };
  for (const { labels, value, exemplar } of samples.get(`${name}_bucket`) ?? []) {
    of(labels).le.push(parseValue(labels.le));
    of(labels).counts.push(value);
    if (exemplar) of(labels).exemplars.push(exemplar);
  }
  for (const { labels, value } of samples.get(`${name}_sum`) ?? []) of(labels).sum = value;
  for (const { labels, value } of samples.get(`${name}_count`) ?? []) of(labels).count = value;
  return found;
}
