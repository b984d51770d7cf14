// Numbers as people read them. Integers of 64 bits come as texts and are shown to the last digit.

const NONE = "-";

function significant(value) {
  const size = Math.abs(value);
  if (size >= 100) return value.toFixed(0);
  if (size >= 10) return value.toFixed(1);
  return value.toFixed(2);
}

export function duration(microseconds) {
  const us = Number(microseconds);
  if (!Number.isFinite(us)) return NONE;
  if (us === 0) return "0";
  if (us < 1) return `${(us * 1000).toFixed(0)} ns`;
  if (us < 1e3) return `${us < 10 ? us.toFixed(1) : us.toFixed(0)} µs`;
  if (us < 1e6) return `${significant(us / 1e3)} ms`;
  if (us < 60e6) return `${significant(us / 1e6)} s`;
  if (us < 3600e6) return `${Math.floor(us / 60e6)} min ${Math.floor((us % 60e6) / 1e6)} s`;
  return `${Math.floor(us / 3600e6)} h ${Math.floor((us % 3600e6) / 60e6)} min`;
}

export function seconds(value) {
  return duration(value * 1e6);
}

// Exact: groups the digits of an integer, which may be a text.
export function count(value) {
  const text = String(value ?? "");
  return /^-?\d+$/.test(text) ? text.replace(/\B(?=(\d{3})+$)/g, ",") : NONE;
}

export function rate(value) {
  if (!Number.isFinite(value)) return NONE;
  if (value === 0) return "0";
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (value >= size) return `${significant(value / size)}${unit}`;
  }
  return value >= 100 ? value.toFixed(0) : value.toFixed(value >= 10 ? 1 : 2);
}

export function bytes(value) {
  let size = Number(value);
  if (!Number.isFinite(size)) return NONE;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (size < 1024) return `${unit === "B" ? size : significant(size)} ${unit}`;
    size /= 1024;
  }
  return `${significant(size)} TiB`;
}

export function percent(share) {
  if (!Number.isFinite(share)) return NONE;
  const value = share * 100;
  if (value === 0) return "0 %";
  if (value < 0.01) return "< 0.01 %";
  return `${value < 1 ? value.toFixed(2) : value < 10 ? value.toFixed(1) : value.toFixed(0)} %`;
}

export function times(ratio) {
  if (!Number.isFinite(ratio)) return NONE;
  return `${ratio >= 10 ? ratio.toFixed(0) : ratio.toFixed(ratio >= 1 ? 1 : 2)}×`;
}

// [0, 1, 2, 5] as "0-2, 5"; of many ranges the first, and how many more there are.
export function ranges(numbers, most = 12) {
  const found = [];
  for (const number of numbers) {
    const last = found[found.length - 1];
    if (last && number === last[1] + 1) last[1] = number;
    else found.push([number, number]);
  }
  const shown = found.slice(0, most).map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`));
  if (found.length > most) shown.push(`and ${found.length - most} more ranges`);
  return shown.join(", ");
}

export function clock(unixMs) {
  const date = new Date(Number(unixMs));
  if (Number.isNaN(date.getTime())) return NONE;
  const two = (value) => String(value).padStart(2, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

export function ago(milliseconds) {
  if (milliseconds === undefined || milliseconds === null) return "never";
  const ms = Number(milliseconds);
  return ms < 1500 ? "just now" : `${seconds(Math.round(ms / 1000))} ago`;
}

// "BALANCE_RULE_SIGN" as "sign".
export function enumName(value, prefix) {
  return String(value ?? "").replace(prefix, "").replaceAll("_", " ").toLowerCase();
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${Number(number) === 1 ? one : many}`;
}

// As it calls itself, once it has been seen.
export function nodeName(node) {
  return node.description?.node_id || node.address;
}

export function byName(nodes) {
  return [...nodes].sort((a, b) => nodeName(a).localeCompare(nodeName(b), "en", { numeric: true }));
}
