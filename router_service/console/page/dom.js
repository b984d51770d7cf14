// Views describe what is to be seen, as trees of h(); render() changes the page to that and leaves alone what is
// the same already, so that focus, selection and scroll positions stay. Text is always text, never markup.

const SVG = "http://www.w3.org/2000/svg";

// key: keeps an element with its data when lists change. draw(element): called after each rendering. What is not
// there (null, false) keeps its place, as an empty text, so that its neighbours are known again.
export function h(tag, properties, ...children) {
  const placed = children.flat(Infinity).map((child) => (child === null || child === undefined || child === false ? "" : child));
  return { tag, properties: properties ?? {}, children: placed };
}

export function svg(tag, properties, ...children) {
  return { ...h(tag, properties, ...children), namespace: SVG };
}

export function render(parent, ...children) {
  const drawings = [];
  const focused = document.activeElement;
  patchChildren(parent, h("", null, ...children).children, drawings);
  // What was moved has lost it.
  if (focused !== document.activeElement && parent.contains(focused)) focused.focus({ preventScroll: true });
  drawings.forEach(([draw, element]) => draw(element));
}

function isText(wanted) {
  return typeof wanted !== "object";
}

function fits(node, wanted) {
  if (isText(wanted)) return node.nodeType === Node.TEXT_NODE;
  return node.described?.tag === wanted.tag && node.described.properties.key === wanted.properties.key;
}

function create(wanted) {
  if (isText(wanted)) return document.createTextNode("");
  const made = wanted.namespace
    ? document.createElementNS(wanted.namespace, wanted.tag)
    : document.createElement(wanted.tag);
  made.described = { tag: wanted.tag, properties: { key: wanted.properties.key } };
  return made;
}

// Gives what came after `old`.
function replaced(old, node) {
  const next = old.nextSibling;
  old.replaceWith(node);
  return next;
}

function patchChildren(parent, wanted, drawings) {
  const keyed = new Map();
  const kept = new Set(wanted.map((child) => child.properties?.key));
  for (const node of [...parent.childNodes]) {
    const key = node.described?.properties.key;
    if (key === undefined) continue;
    if (kept.has(key)) keyed.set(key, node);
    else node.remove();
  }
  let at = parent.firstChild;
  for (const child of wanted) {
    const key = isText(child) ? undefined : child.properties.key;
    let node = key === undefined ? at : keyed.get(key);
    if (!node || !fits(node, child)) {
      node = create(child);
      if (at && at.described?.properties.key === undefined) at = replaced(at, node);
      else parent.insertBefore(node, at);
    } else if (node === at) {
      at = at.nextSibling;
    } else {
      parent.insertBefore(node, at);
    }
    patch(node, child, drawings);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function patch(node, wanted, drawings) {
  if (isText(wanted)) {
    if (node.data !== String(wanted)) node.data = wanted;
    return;
  }
  const before = node.described.properties;
  for (const name of Object.keys(before)) {
    if (!(name in wanted.properties)) setProperty(node, name, undefined, before[name]);
  }
  // A select takes its value only once it has its options.
  patchChildren(node, wanted.children, drawings);
  for (const [name, value] of Object.entries(wanted.properties)) {
    setProperty(node, name, value, before[name]);
  }
  node.described.properties = wanted.properties;
  if (wanted.properties.draw) drawings.push([wanted.properties.draw, node]);
}

function setProperty(node, name, value, before) {
  if (name === "key" || name === "draw") return;
  if (name.startsWith("on")) {
    if (before) node.removeEventListener(name.slice(2), before);
    if (value) node.addEventListener(name.slice(2), value);
  } else if (name === "style") {
    setStyle(node, value ?? {}, before ?? {});
  } else if (name === "value" || name === "checked") {
    if (node[name] !== value) node[name] = value ?? "";
  } else if (value === undefined || value === null || value === false) {
    node.removeAttribute(name);
  } else {
    const text = value === true ? "" : String(value);
    if (node.getAttribute(name) !== text) node.setAttribute(name, text);
  }
}

function setStyle(node, value, before) {
  for (const name of Object.keys(before)) {
    if (!(name in value)) node.style.removeProperty(name);
  }
  for (const [name, text] of Object.entries(value)) {
    if (before[name] !== text) node.style.setProperty(name, text);
  }
}
