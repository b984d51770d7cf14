"""A node that has memory for a part of its experts only, against one that has it for all, in turns.

    build/venv/bin/python tests/bench/offload.py [--share 0.25] [--exponent 1.0] [--policies lru,frequency,predictive]
                                                 [--steps 400] [--rounds 3] [--layers 8] [--experts 64] [--d-model 1024]
                                                 [--intermediate 768] [--top-k 8]

A decoder's steps, one token each, go through all layers, one after the other. Experts are as popular as Zipf's law says
(the r-th as 1 / r^exponent, other ones in each layer). Prints, for each policy of --memory-policy,

  hit rate    of the node; of the same policy, and of the best that could be done by who knows what comes, on the same steps
              (expertmesh replay --cache: optimum); and of who knows how popular experts are, and no more: draws that do
              not depend on one another give no policy more to go by
  equal       answers that have the same bits as those of the node that has everything
  tokens/s    as a share of the other node's, the median of rounds in turns
  resident    the most memory of the node's process, as a share of the limit, and what of it is not weights
  p99 of hits the tail of requests whose experts are in memory, while a second caller's are not, to that of the same two
              callers at the other node

Takes this tree's programs from the environment, or else from build/release. Needs disk for the checkpoint (2.4 GB).
"""

import argparse
import json
import pathlib
import re
import statistics
import tempfile
import threading
import time

import numpy as np
import versus  # Sets the programs. pylint: disable=unused-import

# pylint: disable=wrong-import-order
from expertmesh import Client
from mesh import Mesh, cli


def gates(model):
    """By layer: the gate's weights, [experts, d_model]."""
    found = {}
    for path in sorted(model.glob("*.safetensors")):
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
            for name, tensor in header.items():
                layer = re.fullmatch(r"model\.layers\.(\d+)\.mlp\.gate\.weight", name)
                if layer:
                    begin, end = tensor["data_offsets"]
                    file.seek(8 + size + begin)
                    bits = np.frombuffer(file.read(end - begin), np.uint16).astype(np.uint32) << 16
                    found[int(layer[1])] = bits.view(np.float32).reshape(tensor["shape"])
    return found


class Steps:
    """Hidden states whose gates choose the experts that are wanted."""

    def __init__(self, model, exponent, top_k, seed):
        self._random = np.random.default_rng(seed)
        self._top_k = top_k
        self.uses = []  # (layer, place in the order of popularity) of every expert that was drawn.
        self._inverse = {layer: np.linalg.pinv(gate) for layer, gate in gates(model).items()}
        self.layers = sorted(self._inverse)
        experts = next(iter(self._inverse.values())).shape[1]
        log_share = -exponent * np.log(np.arange(1, experts + 1))
        self.popularity = {
            layer: log_share[np.random.default_rng(layer).permutation(experts)]
            for layer in self.layers
        }

    def of_scores(self, layer, scores):
        return (self._inverse[layer] @ scores).astype(np.float32).reshape(1, -1)

    def next(self):
        """One hidden state for each layer; the experts with the highest scores are a draw by popularity."""
        step = []
        for layer, popularity in self.popularity.items():
            scores = popularity + self._random.gumbel(size=popularity.size)
            drawn = np.argsort(-scores)[: self._top_k]
            self.uses += [(layer, np.count_nonzero(popularity > popularity[expert])) for expert in drawn]
            step.append((layer, self.of_scores(layer, scores)))
        return step

    def share_of_popular(self, share):
        """Uses of the experts that are kept by who knows the popularity and has memory for so many of them."""
        kept = share * len(next(iter(self.popularity.values())))
        return sum(place < kept for _, place in self.uses) / len(self.uses)

    def rank(self, layer, first, count):
        """For the experts with these places in the order of popularity."""
        order = np.argsort(-self.popularity[layer])
        scores = np.zeros(order.size)
        scores[order[first : first + count]] = 5 + np.arange(count)
        return self.of_scores(layer, scores)


def most_resident(node):
    status = pathlib.Path(f"/proc/{node.pid}/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


class System:
    """A router and a node."""

    def __init__(self, folder, model, *node_flags, router_flags=()):
        folder.mkdir()
        self.mesh = Mesh(folder)
        self.mesh.start(model, [node_flags], *router_flags)
        self.client = Client(self.mesh.router.address)
        (self.node,) = self.mesh.nodes

    def run(self, steps):
        """Seconds, and all outputs."""
        begin = time.monotonic()
        outputs = [self.client.forward(layer, hidden).output for step in steps for layer, hidden in step]
        return time.monotonic() - begin, outputs

    def counts(self):
        return [self.node.metric(f"expertmesh_expert_cache_{name}_total") for name in ("hits", "misses")]

    def hits_beside_misses(self, steps, seconds, top_k):
        """Latencies of requests for popular experts, while another caller asks for unpopular ones."""
        over = threading.Event()
        layer = steps.layers[0]
        experts = steps.popularity[layer].size
        popular = steps.rank(layer, 0, top_k)

        def ask_for_the_rest():
            with Client(self.mesh.router.address) as client:
                turn = 0
                while not over.is_set():
                    turn += 1
                    at = steps.layers[1 + turn % (len(steps.layers) - 1)]
                    client.forward(at, steps.rank(at, top_k + turn * top_k % (experts - 2 * top_k), top_k))

        latencies = []
        other = threading.Thread(target=ask_for_the_rest)
        other.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begin = time.monotonic()
            self.client.forward(layer, popular)
            latencies.append(time.monotonic() - begin)
        over.set()
        other.join()
        return latencies

    def close(self):
        self.client.close()
        self.mesh.__exit__(None, None, None)


def replayed(model, recording, limit, policy):
    """The hit rate that a policy has in `expertmesh replay --cache`."""
    arguments = ("--recording", recording, "--model", model, "--cache", f"{limit}B")
    for line in cli("replay", *arguments).stdout.splitlines():
        found = re.search(rf" {policy} +([0-9.]+) %", line)
        if found:
            return float(found[1]) / 100
    raise SystemExit(f"expertmesh replay says nothing of {policy}")


def walk(policy, options, folder, model, limit, everything):
    """Steps through a node with this policy and through the other one, in turns."""
    recording = folder / f"{policy}.rec"
    flags = ("--memory", limit, "--memory-policy", policy)
    system = System(folder / policy, model, *flags, router_flags=("--record-routing", recording))
    steps = Steps(model, options.exponent, options.top_k, seed=1)
    ratios, equal, total = [], 0, 0
    for _ in range(options.rounds):
        drawn = [steps.next() for _ in range(options.steps)]
        whole, expected = everything.run(drawn)
        part, outputs = system.run(drawn)
        ratios.append(whole / part)
        equal += sum(a.tobytes() == b.tobytes() for a, b in zip(expected, outputs))
        total += len(outputs)
    hits, misses = system.counts()
    resident = most_resident(system.node)
    system.close()
    best, same = (replayed(model, recording, limit, name) for name in ("optimum", policy))
    print(
        f"{policy}: hit rate {hits / (hits + misses):.3f} (replayed {same:.3f}, optimum {best:.3f}, popularity known "
        f"{steps.share_of_popular(options.share):.3f}), equal {equal} of {total}, tokens/s "
        f"{statistics.median(ratios):.2f}, resident {resident / limit:.2f} of the limit "
        f"({(resident - limit) / 2**20:.0f} MiB beside it)",
        flush=True,
    )


def tails(policy, options, folder, model, limit, everything):
    """p99 of requests that find their experts, beside others that do not."""
    system = System(folder / f"tails-{policy}", model, "--memory", limit, "--memory-policy", policy)
    steps = Steps(model, options.exponent, options.top_k, seed=1)
    for _ in range(20):  # What is popular is known to be.
        system.client.forward(steps.layers[0], steps.rank(steps.layers[0], 0, options.top_k))
    ratios = []
    for _ in range(options.rounds):
        whole = everything.hits_beside_misses(steps, options.seconds, options.top_k)
        part = system.hits_beside_misses(steps, options.seconds, options.top_k)
        ratios.append(np.quantile(part, 0.99) / np.quantile(whole, 0.99))
    system.close()
    print(f"{policy}: p99 of hits {statistics.median(ratios):.2f} ({', '.join(f'{r:.2f}' for r in ratios)})", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--exponent", type=float, default=1.0)
    parser.add_argument("--policies", default="lru,frequency,predictive")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--experts", type=int, default=64)
    parser.add_argument("--d-model", type=int, default=1024)
    parser.add_argument("--intermediate", type=int, default=768)
    parser.add_argument("--top-k", type=int, default=8)
    options = parser.parse_args()
    shape = ["--layers", options.layers, "--experts", options.experts, "--d-model", options.d_model,
             "--intermediate", options.intermediate, "--top-k", options.top_k]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        model = folder / "model"
        cli("checkpoint", "make", "--output", model, "--family", "qwen3_moe", *shape)
        everything = System(folder / "everything", model)
        limit = int(options.share * everything.node.metric("expertmesh_expert_weights_loaded_bytes"))
        try:
            for policy in options.policies.split(","):
                walk(policy, options, folder, model, limit, everything)
                tails(policy, options, folder, model, limit, everything)
        finally:
            everything.close()


if __name__ == "__main__":
    main()
