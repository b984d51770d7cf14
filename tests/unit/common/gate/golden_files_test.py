#!/usr/bin/env python3
"""Runs make_routing_golden.py again and compares what it writes with what is checked in."""

import filecmp
import pathlib
import subprocess
import sys
import tempfile


def main():
    golden = pathlib.Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as fresh:
        subprocess.run([sys.executable, golden / "make_routing_golden.py", fresh], check=True)
        names = sorted(path.name for path in pathlib.Path(fresh).iterdir())
        _, different, missing = filecmp.cmpfiles(golden, fresh, names, shallow=False)
    if not names or different or missing:
        sys.exit(f"{golden}: run make_routing_golden.py again; different: {different}, "
                 f"missing: {missing}")


if __name__ == "__main__":
    main()
