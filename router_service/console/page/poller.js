// Reads what a page needs, again and again. Data that was read stays when the router does not answer, which is
// tried again ever more seldom. Nothing is read while `active()` is false, and nothing twice while `again()` is.

const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 15_000;
const TICK_MS = 500;

export class Poller {
  // load(path) gives {ok, status, body} or throws when there is no answer. changed() is called when something is
  // new. now() and later(call, ms) are clock and timer.
  constructor({
    load,
    changed,
    active,
    again = () => true,
    now = () => Date.now(),
    later = (call, ms) => setTimeout(call, ms),
    cancel = (timer) => clearTimeout(timer),
  }) {
    Object.assign(this, { load, changed, active, again, now, later, cancel });
    this.sources = new Map();
    this.wanted = [];
    this.failures = 0;
    this.lastAnswer = undefined;
    this.nextTry = 0;
    this.timer = undefined;
    this.busy = false;
  }

  // wanted: [{name, path, everyMs, accept(body, at)}]; everyMs Infinity: once. A source with another path than
  // before is read again, and its old value is forgotten.
  want(wanted) {
    this.wanted = wanted;
    for (const { name, path } of wanted) {
      if (this.sources.get(name)?.path !== path) {
        this.sources.set(name, { path, value: undefined, error: "", at: undefined, due: 0 });
      }
    }
    this.wake();
  }

  get(name) {
    return this.sources.get(name) ?? { value: undefined, error: "" };
  }

  get unreachable() {
    return this.failures > 0;
  }

  // Reads at once what is due, now that something has changed.
  wake() {
    this.cancel(this.timer);
    this.timer = this.later(() => this.tick(), 0);
  }

  retryNow() {
    this.nextTry = 0;
    for (const source of this.sources.values()) source.due = 0;
    this.wake();
  }

  async tick() {
    this.cancel(this.timer);
    if (!this.busy && this.active() && this.now() >= this.nextTry) {
      this.busy = true;
      try {
        await this.readDue();
      } finally {
        this.busy = false;
      }
    }
    if (this.active()) this.timer = this.later(() => this.tick(), TICK_MS);
  }

  async readDue() {
    const now = this.now();
    const due = this.wanted.filter(({ name }) => {
      const source = this.sources.get(name);
      return source.due <= now && (source.at === undefined || this.again());
    });
    if (due.length === 0) return;
    const answers = await Promise.all(due.map((wanted) => this.read(wanted)));
    if (answers.includes("silent")) {
      this.failures += 1;
      const wait = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** (this.failures - 1));
      this.nextTry = this.now() + wait;
    } else {
      this.failures = 0;
      this.lastAnswer = this.now();
    }
    this.changed();
  }

  async read({ name, path, everyMs, accept }) {
    const source = this.sources.get(name);
    let answer;
    try {
      answer = await this.load(path);
    } catch {
      return "silent";
    }
    const at = this.now();
    source.due = at + everyMs;
    source.at = at;
    source.error = answer.ok ? "" : answer.body.trim() || `The router answered with status ${answer.status}.`;
    source.status = answer.status;
    if (answer.ok) source.value = accept ? accept(answer.body, at) : JSON.parse(answer.body);
    // What is not there (yet) is asked for again, even what is read once.
    else if (everyMs === Infinity) source.due = at + 5000;
    return "answered";
  }
}
