"""Compiles every source of the tree that has locks with clang++ -fsyntax-only -Wthread-safety -Werror.

Usage: thread_safety.py BUILD_DIR CLANG++ NINJA

Reads BUILD_DIR/compile_commands.json and writes BUILD_DIR/lint/build.ninja, so that ninja runs the
compilers side by side and, next time, only for files that changed (or whose headers did).
"""

import json
import pathlib
import re
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
DIAGNOSTICS = [
    "-fsyntax-only",
    "-Wthread-safety",
    "-Werror",
    # A flag that only gcc knows is no defect of the source.
    "-Wno-unknown-warning-option",
    "-Wno-ignored-optimization-argument",
]


def clang_command(entry, clang):
    """The entry's preprocessor and warning flags, without its compiler, launcher, input and output."""
    arguments = shlex.split(entry["command"]) if "command" in entry else entry["arguments"]
    kept, skip = [clang], False
    started = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in ("-o", "-MF", "-MT", "-MQ"):
            skip = True
        elif argument in ("-c", "-MD", "-MMD", entry["file"]):
            continue
        elif argument.startswith("-"):
            started = True
            kept.append(argument)
        elif started:
            # The value of the flag before it, as in "-isystem DIR".
            kept.append(argument)
    return kept + DIAGNOSTICS


def ours(path, build):
    return (
        ROOT in path.parents and build not in path.parents and (ROOT / "build") not in path.parents
    )


def has_locks(path):
    """Whether a source, its own header, or a header of ours that has no source of its own speaks of locks."""
    text = path.read_text()
    for name in re.findall(r'^#include "([^"]+)"', text, re.MULTILINE):
        header = ROOT / name
        source = header.with_suffix(".cc")
        if header.exists() and (source == path or not source.exists()):
            text += header.read_text()
    return re.search(r"absl::Mutex|GUARDED_BY|LOCKS_", text) is not None


def escape(text):
    return text.replace("$", "$$").replace(":", "$:").replace(" ", "$ ")


def main():
    build, clang, ninja = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3]
    database = build / "compile_commands.json"
    lint = build / "lint"
    lint.mkdir(exist_ok=True)
    lines = [
        "rule check",
        "  command = $compiler -MD -MF $out.d -MT $out $in && touch $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "  description = clang $in",
    ]
    count = 0
    for entry in json.loads(database.read_text()):
        path = pathlib.Path(entry["directory"], entry["file"]).resolve()
        if not ours(path, build) or not has_locks(path):
            continue
        stamp = lint / f"{count}-{path.name}.ok"
        command = shlex.join(clang_command(entry, clang)).replace("$", "$$")
        lines += [
            f"build {escape(str(stamp))}: check {escape(str(path))}",
            f"  compiler = {command}",
        ]
        count += 1
    if count == 0:
        sys.exit(f"{database} names no source of {ROOT}")
    (lint / "build.ninja").write_text("\n".join(lines) + "\n")
    code = subprocess.run([ninja, "-C", str(lint), "-k", "0", "--quiet"], check=False).returncode
    if code == 0:
        print(f"{count} sources are clean under {clang} -Wthread-safety")
    sys.exit(code)


main()
