"""Stands for a router, a node or the command `expertmesh`: binds, waits, ends as its flags or the environment say.

As the command it is told by FAKE_HEALTH, FAKE_GENERATE and FAKE_DEMO what to end with ("hang": not at all) and by
FAKE_STATE where three services write their ports; as a router or node by FAKE_ROUTER and FAKE_EXPERT what flags to add.
"""

import argparse
import os
import pathlib
import shlex
import signal
import socket
import sys
import time


def hang():
    while True:
        time.sleep(3600)


def bind(address):
    host, port = address.split(":")
    return socket.create_server((host, int(port)))


def serve(args):
    def on_term(_number, _frame):
        print("asked to end", flush=True)
        while args.linger_until and not os.path.exists(args.linger_until):
            time.sleep(0.01)
        sys.exit(0)

    signal.signal(signal.SIGTERM, signal.SIG_IGN if args.ignore_term else on_term)
    print(args.say, flush=True)
    if args.exit is not None:
        sys.exit(args.exit)
    if args.unbound:
        hang()
    # A mesh's ports are given, and no test calls them, so they stay free for others.
    bound = [bind(each) for each in (args.listen, args.metrics_listen) if each.endswith(":0")]
    ports = [each.getsockname()[1] for each in bound] or [1, 2]
    partial = pathlib.Path(args.port_file + ".new")
    partial.write_text(" ".join(map(str, ports)) + "\n")
    partial.rename(args.port_file)
    hang()


def command(name, rest):
    if name == "topology":
        print("topology of", rest[rest.index("--router") + 1])
        return
    print(name, *rest, flush=True)
    code = os.environ.get(f"FAKE_{name.upper()}", "0")
    if code == "hang":
        hang()
    while name == "health" and len(list(pathlib.Path(os.environ["FAKE_STATE"]).glob("*.port"))) < 3:
        time.sleep(0.01)
    sys.exit(int(code))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--say", default="started")
    parser.add_argument("--exit", type=int)
    parser.add_argument("--ignore-term", action="store_true")
    parser.add_argument("--linger-until")
    parser.add_argument("--unbound", action="store_true")
    for flag in ("--listen", "--metrics-listen", "--port-file"):
        parser.add_argument(flag, default="")
    role, *rest = sys.argv[1:]
    if role == "command":
        command(rest[0], rest[1:])
        return
    added = shlex.split(os.environ.get(f"FAKE_{role.upper()}", ""))
    serve(parser.parse_known_args([*rest, *added])[0])


main()
