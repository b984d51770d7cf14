"""deploy/local.sh's second half: `python3 deploy/supervisor ACTION ...`. It has checked the flags."""

import argparse
import os
import pathlib
import signal
import sys

# Instead of this folder, whose modules are those of a package.
sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

# pylint: disable=wrong-import-position
from supervisor import local_mesh
from supervisor.process import ProcessError


def arguments():
    parser = argparse.ArgumentParser(prog="deploy/supervisor", allow_abbrev=False)
    actions = parser.add_subparsers(dest="action", required=True)
    claim = actions.add_parser("claim", help="refuse a state folder or ports that are in use")
    up = actions.add_parser("up", help="start a mesh, run the main job and serve")
    down = actions.add_parser("down", help="stop it")
    status = actions.add_parser("status", help="what runs, and what it serves")
    for action in (claim, up, down, status):
        action.add_argument("--state", required=True)
    for action in (claim, up):
        action.add_argument("--port", type=int, required=True)
        action.add_argument("--nodes", type=int, required=True)
    for action in (up, status):
        action.add_argument("--build", type=pathlib.Path, required=True)
    claim.add_argument("--lock-fd", type=int, required=True)
    for flag in ("--model", "--compute-dtype", "--prompt"):
        up.add_argument(flag, required=True)
    up.add_argument("--replicas", type=int, required=True)
    up.add_argument("--detach", action="store_true")
    return parser.parse_args()


def run(args):
    if args.action == "claim":
        return local_mesh.claim(args.state, args.port, args.nodes, args.lock_fd)
    if args.action == "down":
        return local_mesh.down(args.state)
    if args.action == "status":
        return local_mesh.status(args.state, args.build)
    options = {name: value for name, value in vars(args).items() if name not in ("action", "state")}
    return local_mesh.up(args.state, local_mesh.Options(**options))


def main():
    # `up` handles Ctrl-C itself; the others just end.
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # In order with what the started programs print, and able to print any path.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="surrogateescape")
    try:
        return run(arguments())
    except BrokenPipeError:
        # As of a program that SIGPIPE ends; Python's own last flush has nowhere to go either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (local_mesh.Failure, ProcessError, OSError) as error:
        print(f"local.sh: {error}", file=sys.stderr)
        return 1


sys.exit(main())
