"""Programs of tests with one changed file in them; the tree and its build stay as they are."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import threading

from mutation import ROOT, Broken

# Files that are compiled; others are included.
SOURCES = (".cc", ".cu")


class Build:
    """A build folder, configured with tests and up to date."""

    def __init__(self, folder, ninja, root=ROOT):
        self.folder = pathlib.Path(folder).resolve()
        self.ninja = ninja
        self.root = root
        self.commands = {}
        self.sources = {}
        for entry in json.loads((self.folder / "compile_commands.json").read_text()):
            words = shlex.split(entry["command"])
            compiled = pathlib.Path(self._absolute(words[words.index("-o") + 1]))
            self.commands[compiled] = words
            self.sources[compiled] = pathlib.Path(entry["directory"], entry["file"]).resolve()
        self.lock = threading.Lock()
        self.link_commands = {}
        self.dependencies = None

    def knows_test(self, test):
        return any(f"/CMakeFiles/{test}.dir/" in str(compiled) for compiled in self.commands)

    def program(self, test):
        found = [path for path in self.folder.glob(f"tests/unit/**/{test}") if path.is_file()]
        if not found:
            raise Broken(f"test {test} is not built in {self.folder}")
        if len(found) > 1:
            where = ", ".join(str(path.parent.relative_to(self.folder)) for path in found)
            raise Broken(
                f"test {test} stands in {where}: ninja -C {self.folder} -t cleandead"
                " removes what is no longer built"
            )
        return found[0]

    def make(self, test, path, text, folder):
        """The test's program, in the folder, as it is when the tree's file has this text."""
        shadow = folder / "tree"
        changed = shadow / path.relative_to(self.root)
        changed.parent.mkdir(parents=True)
        changed.write_bytes(text)
        # A source may include itself, once for each instruction set.
        included = path.suffix not in SOURCES or str(path.relative_to(self.root)).encode() in text
        objects = {}
        for number, compiled in enumerate(self._objects(test, path)):
            objects[compiled] = folder / f"{number}.o"
            self._compile(compiled, shadow, included, objects[compiled])
        program = folder / test
        self._link(test, objects, program)
        return program

    def _objects(self, test, path):
        """The objects that are to be compiled again when the file changes."""
        if path.suffix in SOURCES:
            found = [compiled for compiled, source in self.sources.items() if source == path]
            if len(found) > 1:  # For a GPU, too.
                linked = self._linked(test)
                found = [compiled for compiled in found if compiled in linked]
            found = found[:1]
        else:
            linked = self._linked(test)
            found = [name for name in linked if path in self._dependencies().get(name, ())]
        if not found:
            raise Broken(f"{path.relative_to(self.root)} is not compiled for {test}")
        return found

    def _compile(self, compiled, shadow, includes_changed, target):
        words = list(self.commands[compiled])
        words[words.index("-o") + 1] = str(target)
        at = words.index("-c") + 1
        instead = shadow / self.sources[compiled].relative_to(self.root)
        if instead.exists():
            words[at] = str(instead)
        # Tests compare bits with each other and not with the optimiser; what matters here is speed.
        words = [re.sub(r"^-O[23]$", "-O1", word) for word in words if word != "-Werror"]
        if includes_changed:
            # Before the folders where the file is as it was.
            first = next(i for i, word in enumerate(words) if re.match("-I|-isystem|-o$", word))
            words.insert(first, f"-I{shadow}")
        self._run(shlex.join(words))

    def _link(self, test, objects, program):
        command, output = self._link_command(test)
        # Before the libraries: what the objects define is then not looked for in them.
        before = []
        for compiled, changed in objects.items():
            own = re.escape(str(compiled.relative_to(self.folder)))
            command, replaced = re.subn(rf"(?<=\s){own}(?=\s)", str(changed), command)
            if not replaced:
                before.append(str(changed))
        first = re.search(r"\S+\.o\b", command)
        command = " ".join([command[: first.start()], *before, command[first.start() :]])
        self._run(command.replace(f"-o {output}", f"-o {program}"))

    def _link_command(self, test):
        with self.lock:
            if test not in self.link_commands:
                output = str(self.program(test).relative_to(self.folder))
                listed = self._ninja("commands", "-s", output)
                (command,) = [part for part in listed.splitlines() if f"-o {output}" in part]
                # CMake wraps the command: ": && command && :".
                command = command.removeprefix(": && ").removesuffix(" && :")
                self.link_commands[test] = command, output
            return self.link_commands[test]

    def _linked(self, test):
        """The objects in the test's program and in its libraries."""
        output = str(self.program(test).relative_to(self.folder))
        listed = self._ninja("commands", output)
        objects = re.findall(r" -o (\S+\.o) -c ", listed)
        return [pathlib.Path(self._absolute(name)) for name in objects]

    def _dependencies(self):
        """The tree's files that each object was compiled from."""
        with self.lock:
            if self.dependencies is None:
                self.dependencies, files = {}, set()
                for line in self._ninja("deps").splitlines():
                    if line.startswith(" "):
                        path = self._absolute(line.strip())
                        if path.startswith(f"{self.root}{os.sep}"):
                            files.add(pathlib.Path(path))
                    elif line:
                        compiled = pathlib.Path(self._absolute(line.split(":")[0]))
                        files = self.dependencies.setdefault(compiled, set())
            return self.dependencies

    def _absolute(self, name):
        return os.path.normpath(os.path.join(self.folder, name))

    def _ninja(self, *arguments):
        return subprocess.run(
            [self.ninja, "-t", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def _run(self, command):
        done = subprocess.run(
            command, shell=True, cwd=self.folder, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise Broken(f"{command}\n{done.stdout}{done.stderr}"[-4000:])
