"""What a mesh that serves tells its user: how to write with it, and how to call it."""

import shlex
import sys


def _bold(text):
    return f"\x1b[1m{text}\x1b[0m" if sys.stdout.isatty() else text


def say(text):
    print(_bold(text))


def show_writing(command, router, model, replicated):
    """command: path of the program `expertmesh`. replicated: a node whose experts have a replica, or None."""
    generate = f"expertmesh generate --router {router} --model {shlex.quote(model)}"
    print(
        f"""
{_bold("Try next")}
  PATH={command.parent}:$PATH
  {generate} --prompt 'Thus saith the LORD'
  {generate} --chat --temperature 0.7
  {generate} --bench"""
    )
    if replicated is not None:
        print(
            f"  kill -9 {replicated.pid}    # {replicated.name}; its experts have a replica,"
            " and the text goes on"
        )


def show_calling(router):
    print(
        f"""
{_bold("Python")}
  deploy/venv.sh
  build/venv/bin/python -c '
import expertmesh, numpy
with expertmesh.Client("{router}") as client:
    model = client.describe()
    layer = model.layers[0].layer
    x = numpy.random.default_rng(0).standard_normal((4, model.d_model), dtype=numpy.float32)
    options = expertmesh.ForwardOptions(return_routing=True)
    result = client.forward(layer, x, options)
    print(result.output.shape, result.expert_ids[0])
'
{_bold("C++")}
  cmake --build build/release && cmake --install build/release --prefix build/install
  cmake -S client/cpp/examples -B build/examples -DCMAKE_PREFIX_PATH=$PWD/build/install
  cmake --build build/examples && build/examples/forward {router}
{_bold("grpcurl")}
  grpcurl -plaintext {router} expertmesh.v1.Router/DescribeModel
  grpcurl -plaintext {router} expertmesh.v1.Control/GetTopology
"""
    )
