// What is shown, as the part of the address after '#': "#/traces/ID?span=X".

export const PAGES = ["overview", "nodes", "experts", "balance", "latency", "traces"];

export function parseRoute(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [page = "", id = ""] = path.split("/");
  return {
    page: PAGES.includes(page) ? page : "overview",
    id: decode(id),
    query: Object.fromEntries(new URLSearchParams(query)),
  };
}

// An address typed by hand may have a '%' that escapes nothing.
function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

// What is undefined or empty is left out of the query.
export function href(page, id = "", query = {}) {
  const kept = Object.entries(query).filter(([, value]) => value !== undefined && value !== "");
  const path = id ? `${page}/${encodeURIComponent(id)}` : page;
  return `#/${path}${kept.length ? `?${new URLSearchParams(kept)}` : ""}`;
}
