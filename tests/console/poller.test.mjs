import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { Poller } from "../../router_service/console/page/poller.js";

const OK = (body) => ({ ok: true, status: 200, body });
let now, active, asked, answer, changes, poller;

beforeEach(() => {
  [now, active, asked, changes] = [0, true, [], 0];
  answer = () => OK("1");
  poller = new Poller({
    load: async (path) => {
      asked.push(path);
      return answer(path);
    },
    changed: () => ++changes,
    active: () => active,
    now: () => now,
    later: () => 0,
    cancel: () => {},
  });
});

async function at(time) {
  now = time;
  asked = [];
  await poller.tick();
  return asked;
}

const silent = () => {
  throw new Error("refused");
};

test("each source is read as often as it is wanted", async () => {
  poller.want([{ name: "a", path: "a", everyMs: 2000 }, { name: "b", path: "b", everyMs: Infinity }]);
  assert.deepEqual(await at(0), ["a", "b"]);
  assert.deepEqual(await at(1000), []);
  assert.deepEqual(await at(2000), ["a"]);
  assert.equal(poller.get("a").value, 1);
  assert.equal(changes, 2);
});

test("nothing is read while the page is hidden", async () => {
  poller.want([{ name: "a", path: "a", everyMs: 2000 }]);
  active = false;
  assert.deepEqual(await at(0), []);
  active = true;
  assert.deepEqual(await at(9000), ["a"]);
});

test("while it is paused, what was never read is read once", async () => {
  poller.again = () => false;
  poller.want([{ name: "a", path: "a", everyMs: 0 }]);
  assert.deepEqual(await at(0), ["a"]);
  assert.deepEqual(await at(5000), []);
  poller.again = () => true;
  assert.deepEqual(await at(6000), ["a"]);
});

test("without an answer what was read stays, and it is tried ever more seldom", async () => {
  poller.want([{ name: "a", path: "a", everyMs: 0 }]);
  await at(0);
  answer = silent;
  const tries = [];
  for (let time = 100; time <= 60_000; time += 100) if ((await at(time)).length) tries.push(time);
  assert.deepEqual(tries.slice(0, 5), [100, 1100, 3100, 7100, 15_100]);
  assert.ok(tries.slice(5).every((time, i) => time - tries[i + 4] === 15_000), `${tries}`);
  assert.equal(poller.get("a").value, 1);
  assert.equal(poller.unreachable, true);
  assert.equal(poller.lastAnswer, 0);
});

test("it is tried at once when that is wanted, and an answer ends it", async () => {
  poller.want([{ name: "a", path: "a", everyMs: 2000 }]);
  answer = silent;
  await at(0);
  assert.deepEqual(await at(500), []);
  answer = () => OK("5");
  poller.retryNow();
  assert.deepEqual(await at(600), ["a"]);
  assert.equal(poller.unreachable, false);
  assert.equal(poller.get("a").value, 5);
});

test("a refusal is an answer: it is shown, and other sources go on", async () => {
  answer = (path) => (path === "a" ? { ok: false, status: 409, body: "not traced: --tracing=off\n" } : OK("2"));
  poller.want([{ name: "a", path: "a", everyMs: 2000 }, { name: "b", path: "b", everyMs: 2000 }]);
  await at(0);
  assert.equal(poller.unreachable, false);
  assert.equal(poller.get("a").error, "not traced: --tracing=off");
  assert.equal(poller.get("a").status, 409);
  assert.equal(poller.get("b").value, 2);
});

test("what is not there yet is asked for again, although it is to be read once", async () => {
  answer = () => ({ ok: false, status: 404, body: "" });
  poller.want([{ name: "a", path: "a", everyMs: Infinity }]);
  await at(0);
  assert.match(poller.get("a").error, /status 404/);
  assert.deepEqual(await at(4000), []);
  assert.deepEqual(await at(5000), ["a"]);
});

test("under another path what was read is forgotten", async () => {
  poller.want([{ name: "a", path: "a?1", everyMs: Infinity }]);
  await at(0);
  poller.want([{ name: "a", path: "a?2", everyMs: Infinity }]);
  assert.equal(poller.get("a").value, undefined);
  assert.deepEqual(await at(100), ["a?2"]);
});
