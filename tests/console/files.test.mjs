// Rules of the page's files: nothing from elsewhere, nothing that the Content-Security-Policy would stop, colours
// that can be read.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

const FOLDER = new URL("../../router_service/console/page/", import.meta.url);
const FILES = readdirSync(FOLDER);
const text = (name) => readFileSync(new URL(name, FOLDER), "utf8");
const SCRIPTS = FILES.filter((name) => name.endsWith(".js"));

test("every import is of a file that is there, and every file is used", () => {
  const used = new Set(["index.html"]);
  for (const name of SCRIPTS) {
    for (const [, from] of text(name).matchAll(/from "([^"]+)"/g)) {
      assert.match(from, /^\.\/\w+\.js$/, `${name} imports ${from}`);
      assert.ok(FILES.includes(from.slice(2)), `${name} imports ${from}`);
      used.add(from.slice(2));
    }
  }
  for (const [, name] of text("index.html").matchAll(/"console\/([^"]+)"/g)) used.add(name);
  assert.deepEqual([...used].sort(), FILES.sort());
});

test("nothing is loaded from elsewhere, or by an absolute path", () => {
  for (const name of FILES) {
    const addresses = [...text(name).matchAll(/\b(?:https?:)?\/\/[\w.-]+\.\w+/g)].map(([found]) => found);
    assert.deepEqual(addresses.filter((found) => !found.endsWith("www.w3.org")), [], name);
  }
  assert.doesNotMatch(text("index.html"), /(?:src|href)="\//);
  assert.doesNotMatch(text("console.css") + text("views.css"), /@import|url\(/);
});

test("no markup is made of texts, and nothing is inline", () => {
  for (const name of SCRIPTS) {
    assert.doesNotMatch(text(name), /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|javascript:/, name);
  }
  assert.doesNotMatch(text("index.html"), /\sstyle=|\son\w+=|<style|<script(?![^>]*\ssrc=)/);
});

test("a file is one idea", () => {
  for (const name of SCRIPTS) assert.ok(text(name).split("\n").length < 300, name);
});

function colours(css) {
  return Object.fromEntries([...css.matchAll(/--([\w-]+): (#[0-9a-f]{6});/g)].map(([, name, value]) => [name, value]));
}

function luminance(hex) {
  const [red, green, blue] = [1, 3, 5].map((at) => {
    const part = Number.parseInt(hex.slice(at, at + 2), 16) / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function contrast(one, other) {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}

const [LIGHT, DARK] = text("console.css").split("@media (prefers-color-scheme: dark)");
const THEMES = { light: colours(LIGHT), dark: { ...colours(LIGHT), ...colours(DARK) } };
// What is written in the first on the others.
const WRITTEN = [
  ["ink", ["ground", "panel", "raised", "accent-ground", "good-ground", "warn-ground", "bad-ground"]],
  ["soft", ["ground", "panel", "raised", "accent-ground"]],
  ["accent", ["ground", "panel", "raised", "accent-ground", "bad-ground", "warn-ground"]],
  ["good", ["good-ground"]],
  ["warn", ["warn-ground"]],
  ["bad", ["bad-ground", "panel"]],
  ["slow", ["panel", "raised", "accent-ground"]],
  ["bar-ink", ["bar"]],
  ["bar-soft", ["bar"]],
];

for (const [theme, named] of Object.entries(THEMES)) {
  test(`every text can be read in the ${theme} colours (WCAG AA)`, () => {
    for (const [ink, grounds] of WRITTEN) {
      for (const ground of grounds) {
        const ratio = contrast(named[ink], named[ground]);
        assert.ok(ratio >= 4.5, `${ink} on ${ground}: ${ratio.toFixed(2)}`);
      }
    }
  });

  test(`marks of the ${theme} colours stand out from where they are drawn`, () => {
    for (const mark of ["accent", "slow", "router", "node", "client", "bad"]) {
      assert.ok(contrast(named[mark], named.raised) >= 3, `${mark}: ${contrast(named[mark], named.raised).toFixed(2)}`);
    }
  });
}
