#!/usr/bin/env python3
"""Runs a script that writes golden files again and compares them with what is checked in.

Usage: golden_files_test.py SCRIPT    (the files lie beside it)
"""

import filecmp
import pathlib
import subprocess
import sys
import tempfile


def main():
    script = pathlib.Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as fresh:
        subprocess.run([sys.executable, script, fresh], check=True)
        names = sorted(path.name for path in pathlib.Path(fresh).iterdir())
        _, different, missing = filecmp.cmpfiles(script.parent, fresh, names, shallow=False)
    if not names or different or missing:
        sys.exit(f"run {script} again; different: {different}, missing: {missing}")


if __name__ == "__main__":
    main()
