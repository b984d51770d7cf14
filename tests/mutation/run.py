#!/usr/bin/env python3
"""Checks that the tests notice wrong code: for every routing and expert option, deliberately wrong variants
(mutations.py), each of which must make at least one named test fail.

A variant is a copy of one source file with one piece of text replaced. It is compiled with that file's own
command and linked before the libraries into the test that is to notice it; the tree and its build stay as
they are. The build must be up to date.

  tests/mutation/run.py build/release [--only TEXT] [--jobs N] [--list] [--texts]
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time

from mutations import MUTATIONS

ROOT = pathlib.Path(__file__).resolve().parents[2]
# A wrong loop may not end. A right test does, also on a busy machine.
PATIENCE = 600


class Broken(Exception):
    """The check itself cannot be made: the text is not there, or the variant does not compile."""


class Build:
    def __init__(self, folder, ninja):
        self.folder = pathlib.Path(folder).resolve()
        self.ninja = ninja
        entries = json.loads((self.folder / "compile_commands.json").read_text())
        self.compile_commands = {
            str(pathlib.Path(entry["directory"], entry["file"]).resolve()): entry
            for entry in entries
        }
        self.link_commands = {}
        # Tests that pass without any mutation.
        self.checked_as_is = set()
        self.lock = threading.Lock()

    def run(self, command):
        done = subprocess.run(
            command, shell=True, cwd=self.folder, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise Broken(f"{command}\n{done.stdout}{done.stderr}"[-4000:])

    def compile(self, source, mutated, target):
        entry = self.compile_commands.get(str(ROOT / source))
        if entry is None:
            raise Broken(f"{source} is not compiled in {self.folder}")
        words = shlex.split(entry["command"])
        words[words.index("-o") + 1] = str(target)
        words[words.index("-c") + 1] = str(mutated)
        # Tests compare bits with each other and not with the optimiser; what matters here is speed.
        words = [re.sub(r"^-O[23]$", "-O1", word) for word in words if word != "-Werror"]
        self.run(shlex.join(words))

    def link(self, test, mutated_object, target):
        with self.lock:
            if test not in self.link_commands:
                self.link_commands[test] = self._link_command(test)
            command, output = self.link_commands[test]
        # Before the libraries: what the variant defines is then not looked for in them.
        first = re.search(r"\S+\.o\b", command)
        command = f"{command[: first.start()]}{mutated_object} {command[first.start() :]}"
        self.run(command.replace(f"-o {output}", f"-o {target}"))

    def _link_command(self, test):
        path = self.path(test)
        output = str(path.relative_to(self.folder))
        listed = subprocess.run(
            [self.ninja, "-t", "commands", "-s", output],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        (command,) = [part for part in listed.splitlines() if f"-o {output}" in part]
        # CMake wraps the command: ": && command && :".
        return command.removeprefix(": && ").removesuffix(" && :"), output

    def path(self, test):
        found = [path for path in self.folder.glob(f"tests/unit/**/{test}") if path.is_file()]
        if len(found) != 1:
            raise Broken(f"test {test} is not built in {self.folder}")
        return found[0]


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


def mutated_text(mutation):
    text = (ROOT / mutation.file).read_text()
    count = text.count(mutation.search)
    if count != 1:
        raise Broken(f"{mutation.file} has {count} times, not once: {mutation.search!r}")
    return text.replace(mutation.search, mutation.replace)


def apply(mutation, folder):
    mutated = folder / pathlib.Path(mutation.file).name
    mutated.write_text(mutated_text(mutation))
    return mutated


def check_as_is(build, mutation):
    key = (mutation.test, mutation.tests, mutation.isa_at_most)
    with build.lock:
        if key in build.checked_as_is:
            return
        failed = failing_tests(build.path(mutation.test), mutation)
        if failed:
            raise Broken(f"fails without any mutation: {', '.join(failed)}")
        build.checked_as_is.add(key)


def check(build, mutation):
    """The tests that noticed."""
    check_as_is(build, mutation)
    with tempfile.TemporaryDirectory(prefix="mutation_") as name:
        folder = pathlib.Path(name)
        mutated_object = folder / "mutated.o"
        build.compile(mutation.file, apply(mutation, folder), mutated_object)
        program = folder / mutation.test
        build.link(mutation.test, mutated_object, program)
        return failing_tests(program, mutation)


def absent_sets(folder):
    """Instruction sets that programs here do not use."""
    lines = subprocess.run(
        [folder / "tests" / "support" / "cpu_isa"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[1:]
    return {name for name, state in (line.split(" ", 1) for line in lines) if state != "used"}


def report(build, mutation):
    """Whether it was noticed."""
    begin = time.monotonic()
    try:
        failed = check(build, mutation)
        verdict = f"noticed by {failed[0]}" if failed else "NOT NOTICED"
    except Broken as error:
        failed, verdict = [], f"BROKEN: {error}"
    print(f"{mutation.name}: {verdict} ({time.monotonic() - begin:.1f} s)", flush=True)
    return bool(failed)


def check_texts(mutations):
    wrong = 0
    for mutation in mutations:
        try:
            mutated_text(mutation)
        except Broken as error:
            print(f"{mutation.name}: {error}")
            wrong += 1
    print(f"{len(mutations) - wrong} of {len(mutations)} mutations can be made")
    return 1 if wrong else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("build", help="build folder, configured with tests and built")
    parser.add_argument("--only", default="", help="mutations whose name holds this text")
    parser.add_argument("--list", action="store_true", help="names only")
    parser.add_argument(
        "--texts", action="store_true", help="only whether every text is in its file exactly once"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="at once")
    parser.add_argument("--ninja", default=os.environ.get("NINJA", "ninja"))
    arguments = parser.parse_args()
    chosen = [mutation for mutation in MUTATIONS if arguments.only in mutation.name]
    if arguments.list:
        print("\n".join(mutation.name for mutation in chosen))
        return 0
    if not chosen:
        parser.error(f"no mutation's name holds {arguments.only!r}")
    if arguments.texts:
        return check_texts(chosen)
    build = Build(arguments.build, arguments.ninja)
    absent = absent_sets(build.folder)
    for mutation in chosen:
        if mutation.isa in absent:
            print(f"{mutation.name}: not run, since it needs {mutation.isa}")
    chosen = [mutation for mutation in chosen if mutation.isa not in absent]
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        noticed = list(pool.map(lambda mutation: report(build, mutation), chosen))
    wrong = [mutation.name for mutation, good in zip(chosen, noticed, strict=True) if not good]
    print(f"{len(chosen) - len(wrong)} of {len(chosen)} mutations noticed")
    if wrong:
        print("not noticed or broken: " + ", ".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
