#!/usr/bin/env python3
"""Checks that the tests notice wrong code: deliberately wrong variants of the code that computes
(rooms/), each of which must make at least one named test fail.

A variant is one change that an operator (operators.py) makes to one definition, wherever in the
tree that is. The changed file, or for a header what includes it, is compiled with its own commands
and linked before the libraries into the test that is to notice it; the tree and its build stay as
they are. The build must be up to date.

  tests/mutation/run.py build/release [--only TEXT] [--jobs N] [--list] [--places] [--show]
"""

import argparse
import collections
import concurrent.futures
import difflib
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

from build import Build
from mutation import ROOT, Broken, mutated, tree_here
from rooms import MUTATIONS

# A wrong loop may not end. A right test does, also on a busy machine.
PATIENCE = 600


def failing_tests(program, mutation):
    """Names of the failing ones among the mutation's tests. At least one must run."""
    tests = mutation.tests
    environment = dict(os.environ)
    if mutation.isa_at_most:
        environment["EXPERTMESH_MAX_CPU_ISA"] = mutation.isa_at_most
    try:
        done = subprocess.run(
            [program, f"--gtest_filter={tests}", "--gtest_color=no"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [f"{tests} (did not end)"]
    if not re.search(r"Running [1-9]\d* test", done.stdout):
        raise Broken(f"{program}: no test matches {tests}")
    failed = re.findall(r"^\[  FAILED  \] ([^\s,]+\.[^\s,]+)", done.stdout, re.MULTILINE)
    if done.returncode != 0 and not failed:
        failed = [f"{tests} (ended with {done.returncode})"]
    return failed


class Check:
    def __init__(self, build, tree):
        self.build = build
        self.tree = tree
        self.lock = threading.Lock()
        # By tests: a lock to run them once without any mutation, and those that passed so.
        self.locks = collections.defaultdict(threading.Lock)
        self.passed_as_is = set()

    def as_is(self, mutation):
        key = (mutation.test, mutation.tests, mutation.isa_at_most)
        with self.lock:
            lock = self.locks[key]
        with lock:
            if key in self.passed_as_is:
                return
            failed = failing_tests(self.build.program(mutation.test), mutation)
            if failed:
                raise Broken(f"fails without any mutation: {', '.join(failed)}")
            self.passed_as_is.add(key)

    def noticing(self, mutation):
        """The tests that noticed."""
        # The parser serves one thread at a time.
        with self.lock:
            path, text = mutated(self.tree, mutation)
        self.as_is(mutation)
        with tempfile.TemporaryDirectory(prefix="mutation_") as folder:
            program = self.build.make(mutation.test, path, text, pathlib.Path(folder))
            return failing_tests(program, mutation)

    def report(self, mutation):
        """Whether it was noticed."""
        begin = time.monotonic()
        try:
            failed = self.noticing(mutation)
            verdict = f"noticed by {failed[0]}" if failed else "NOT NOTICED"
        except Broken as error:
            failed, verdict = [], f"BROKEN: {error}"
        print(f"{mutation.name}: {verdict} ({time.monotonic() - begin:.1f} s)", flush=True)
        return bool(failed)


def absent_sets(folder):
    """Instruction sets that programs here do not use."""
    lines = subprocess.run(
        [folder / "tests" / "support" / "cpu_isa"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[1:]
    return {name for name, state in (line.split(" ", 1) for line in lines) if state != "used"}


def check_places(mutations, build, tree):
    """That every mutation is exactly one change, and names a test program that there is."""
    wrong = 0
    for mutation in mutations:
        try:
            mutated(tree, mutation)
            if not build.knows_test(mutation.test):
                raise Broken(
                    f"no test program is called {mutation.test!r}. Name the one to notice it."
                )
        except Broken as error:
            print(f"{mutation.name}: {error}")
            wrong += 1
    print(f"{len(mutations) - wrong} of {len(mutations)} mutations can be made")
    return 1 if wrong else 0


def show(mutations, tree):
    for mutation in mutations:
        path, after = mutated(tree, mutation)
        name = str(path.relative_to(ROOT))
        before = tree.source(path).text.decode().splitlines()
        difference = difflib.unified_diff(
            before, after.decode().splitlines(), name, name, n=1, lineterm=""
        )
        print(mutation.name, *difference, "", sep="\n")


def check(mutations, build, tree, jobs):
    absent = absent_sets(build.folder)
    for mutation in mutations:
        if mutation.isa in absent:
            print(f"{mutation.name}: not run, since it needs {mutation.isa}")
    chosen = [mutation for mutation in mutations if mutation.isa not in absent]
    made = Check(build, tree)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        noticed = list(pool.map(made.report, chosen))
    wrong = [mutation.name for mutation, good in zip(chosen, noticed, strict=True) if not good]
    print(f"{len(chosen) - len(wrong)} of {len(chosen)} mutations noticed")
    if wrong:
        print("not noticed or broken: " + ", ".join(wrong))
    return 1 if wrong else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("build", help="build folder, configured with tests and built")
    parser.add_argument("--only", default="", help="mutations whose name holds this text")
    parser.add_argument("--list", action="store_true", help="names only")
    parser.add_argument(
        "--places", action="store_true", help="only whether each is exactly one change to the tree"
    )
    parser.add_argument("--show", action="store_true", help="only what each changes")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="at once")
    parser.add_argument("--ninja", default=os.environ.get("NINJA", "ninja"))
    arguments = parser.parse_args()
    chosen = [mutation for mutation in MUTATIONS if arguments.only in mutation.name]
    if arguments.list:
        print("\n".join(mutation.name for mutation in chosen))
        return 0
    if not chosen:
        parser.error(f"no mutation's name holds {arguments.only!r}")
    if arguments.show:
        show(chosen, tree_here())
        return 0
    build = Build(arguments.build, arguments.ninja)
    if arguments.places:
        return check_places(chosen, build, tree_here())
    return check(chosen, build, tree_here(), arguments.jobs)


if __name__ == "__main__":
    sys.exit(main())
