#!/usr/bin/env bash
# HAProxy 2.6.12 (Debian 12): when a gRPC server ends a stream on which the caller still sends, HAProxy takes away the
# server's status and text more often than not, and the caller sees CANCELLED. nginx and Envoy pass the status on.
#
# Seen, of 300 streams that the server ended with UNAVAILABLE: 255 came as CANCELLED; without HAProxy none.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get download -q haproxy=2.6.12\* liblua5.3-0 libopentracing-c-wrapper0 libopentracing1 >/dev/null
for package in *.deb; do dpkg-deb -x "$package" root; done
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check grpcio==1.76.0

cat >streams.py <<'CODE'
import collections
import concurrent.futures
import os
import pathlib
import socket
import subprocess
import sys
import time

import grpc

METHOD = "/test.Ending/Stream"
OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


def end(requests, context):
    context.send_initial_metadata(())
    for number, request in enumerate(requests):
        yield request
        if number == 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "call another one")


class Ending(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.stream_stream_rpc_method_handler(end)


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def messages():
    for _ in range(20):
        yield b"x" * 4096
        time.sleep(0.002)


def ends(address):
    """How each of 50 streams ended."""
    found = collections.Counter()
    with grpc.insecure_channel(address, options=OPTIONS) as channel:
        call = channel.stream_stream(METHOD)
        for _ in range(50):
            try:
                list(call(messages(), wait_for_ready=True))
                found["OK"] += 1
            except grpc.RpcError as error:
                found[f"{error.code().name}: {error.details()}"] += 1
    return found


def all_ends(address):
    found = collections.Counter()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        for each in pool.map(ends, [address] * 6):
            found += each
    return found


server = grpc.server(concurrent.futures.ThreadPoolExecutor(32), handlers=[Ending()])
server_port = server.add_insecure_port("127.0.0.1:0")
server.start()
port = free_port()
pathlib.Path("haproxy.cfg").write_text(f"""
defaults
  mode http
  timeout connect 5s
  timeout client 50s
  timeout server 50s
frontend callers
  bind 127.0.0.1:{port} proto h2
  default_backend servers
backend servers
  server one 127.0.0.1:{server_port} proto h2
""")
libraries = {**os.environ, "LD_LIBRARY_PATH": str(next(pathlib.Path("root/usr/lib").glob("*-linux-gnu")))}
proxy = subprocess.Popen(["root/usr/sbin/haproxy", "-db", "-f", "haproxy.cfg"], env=libraries)
try:
    direct, behind = all_ends(f"127.0.0.1:{server_port}"), all_ends(f"127.0.0.1:{port}")
finally:
    proxy.kill()
    proxy.wait()
    server.stop(None)
for name, found in (("without HAProxy", direct), ("behind HAProxy", behind)):
    print(f"{name}: " + ", ".join(f"{n} x {text}" for text, n in found.items()))
said = "UNAVAILABLE: call another one"
if set(direct) != {said} or set(behind) == {said}:
    sys.exit("HAProxy no longer takes statuses away, or they are lost without it, too")
CODE
venv/bin/python streams.py
