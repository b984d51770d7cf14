"""Calls a mesh of two routers through each proxy and prints what passes: see tests/README.md, Proxies.

    tests/proxies/run.py [--proxy NAME]... [--settings page|defaults] [--clients raw|expertmesh|MODULE:CLASS]
                         [--check NAME]... [--seconds N] [--router-flag=FLAG]... [--json FILE]

The proxies come from PATH, or from tests/proxies/programs.py, which this calls first.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
BUILT = {
    "ROUTER": "router_service/expertmesh-router",
    "EXPERT": "expert_service/expertmesh-expert",
    "CLI": "client/cpp/expertmesh",
}
for variable, path in BUILT.items():
    os.environ.setdefault(f"EXPERTMESH_{variable}", str(ROOT / "build" / "release" / path))

# pylint: disable=wrong-import-position
import behind
import callers
import checks
import loss
import programs

# Alone, since the processor is what they take, or the node's answers.
FIRST = {"big": checks.big, "errors": checks.errors, "metadata": checks.metadata}
# All at once: they wait most of the time.
LONG = {
    "active": checks.active,
    "idle": checks.idle,
    "silent": checks.silent,
    "watch": checks.watch,
    "silent_watch": checks.silent_watch,
}
LAST = {"kill": loss.kill, "drain": loss.drain, "not_ready": loss.not_ready}
# Only when asked for.
EXTRA = {"steady": loss.steady}
CHECKS = [*FIRST, "slow", *LONG, *LAST]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--proxy", action="append", choices=["none", *programs.KINDS])
    parser.add_argument("--settings", default="page", choices=["page", "defaults"])
    parser.add_argument("--clients", default="raw")
    parser.add_argument("--check", action="append", choices=[*CHECKS, *EXTRA])
    parser.add_argument("--router-flag", action="append", default=[], metavar="FLAG")
    parser.add_argument("--seconds", type=int, default=90, help="life of the long streams")
    parser.add_argument("--json", type=pathlib.Path)
    return parser.parse_args()


class Direct:
    """No proxy: one of the routers itself."""

    def __init__(self, address):
        self.address = address

    def start(self):
        return self

    def stop(self):
        pass


def make_proxy(name, settings, folder, mesh):
    if name == "none":
        return Direct(mesh.addresses[1])
    source = behind.PAGE if settings == "page" else behind.DEFAULTS
    return behind.Proxy(name, source, folder, mesh.addresses)


def one(check, make_caller, address, mesh, *rest):
    """Runs a check with a caller of its own. One that a client cannot do has no outcome."""
    caller = make_caller(address)
    try:
        return check(caller, mesh, *rest)
    except NotImplementedError as error:
        return checks.Outcome(True, "n/a", str(error))
    finally:
        caller.close()


class Results:
    def __init__(self):
        self.by_proxy = {}

    def add(self, proxy, check, outcome):
        self.by_proxy.setdefault(proxy, {})[check] = dataclasses.asdict(outcome)
        mark = "ok" if outcome.good else "NO"
        print(f"{proxy:8} {check:12} {mark} {outcome.text}  {outcome.error}", flush=True)


def ordered(group, wanted):
    return [name for name in group if name in wanted]


def run_all(options, mesh, proxies, results):
    wanted = options.check or CHECKS
    make_caller = callers.caller(options.clients)
    for name, proxy in proxies.items():
        checks.reached(proxy.address)
        for check in ordered(FIRST, wanted):
            results.add(name, check, one(FIRST[check], make_caller, proxy.address, mesh))
    pool = concurrent.futures.ThreadPoolExecutor(len(proxies) * (len(LONG) + 1))
    started = []
    for name, proxy in proxies.items():
        for check in ordered(LONG, wanted):
            work = (LONG[check], make_caller, proxy.address, mesh, options.seconds)
            started.append((name, check, pool.submit(one, *work)))
    if "slow" in wanted:
        slow_calls(proxies, make_caller, mesh, pool, started)
    for name, check, future in started:
        results.add(name, check, future.result())
    for name, proxy in proxies.items():
        for check, work in {**LAST, **EXTRA}.items():
            # Without a proxy, the router that is called is the one that stays.
            if check in wanted and (name != "none" or check in EXTRA):
                results.add(name, check, work(make_caller, proxy.address, mesh))


def slow_calls(proxies, make_caller, mesh, pool, started):
    """All at once: the relay holds them all."""
    # Each router has sent so much through the relay that it knows which connection tensors take.
    for address in mesh.addresses:
        one(lambda caller, _: caller.forward(1, checks.rows(64), 20), callers.RawCaller, address, mesh)
    for name, proxy in proxies.items():
        work = (checks.slow, make_caller, proxy.address, mesh)
        started.append((name, "slow", pool.submit(one, *work)))


def table(results):
    names = list(results)
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for check in [*CHECKS, *EXTRA]:
        cells = []
        for name in names:
            outcome = results[name].get(check)
            cells.append(
                "" if outcome is None else ("" if outcome["good"] else "NO: ") + outcome["text"]
            )
        if any(cells):
            lines.append(f"| {check} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    options = arguments()
    programs.install()
    names = options.proxy or list(programs.KINDS)
    results = Results()
    with tempfile.TemporaryDirectory(prefix="expertmesh-proxies-") as folder:
        folder = pathlib.Path(folder)
        with behind.TwoRouters(folder) as mesh:
            mesh.start_all(*options.router_flag)
            proxies = {}
            try:
                for name in names:
                    proxies[name] = make_proxy(name, options.settings, folder, mesh).start()
                run_all(options, mesh, proxies, results)
            finally:
                for proxy in proxies.values():
                    if isinstance(proxy, Direct) or proxy.running():
                        (proxy.stop if isinstance(proxy, Direct) else proxy.kill)()
    versions = {name: programs.version(name) for name in names if name != "none"}
    print(f"\n{options.settings}, {options.clients}; {versions}\n\n{table(results.by_proxy)}")
    if options.json:
        said = {"settings": options.settings, "clients": options.clients, "versions": versions}
        options.json.write_text(json.dumps({**said, "results": results.by_proxy}, indent=1))
    good = all(each["good"] for found in results.by_proxy.values() for each in found.values())
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
