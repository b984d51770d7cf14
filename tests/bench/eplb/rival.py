"""Plans the loads of a file with one rival, on one thread: prints JSON, as eplb-plan does.

  rival.py vllm|deepseek FOLDER FILE REPEATS

FOLDER has the rival's files as compare.py unpacks them, FILE is what eplb-plan reads. Copies of an
expert share its load evenly: neither rival says otherwise.
"""

import importlib.util
import json
import pathlib
import sys
import time
import types

import loads

FILES = {
    "vllm": "vllm/distributed/eplb/policy/default.py",
    "deepseek": "sglang/srt/eplb/eplb_algorithms/deepseek.py",
}


def _module(folder, rival):
    """The rival's file alone: the packages that it is in would import engines."""
    path = pathlib.Path(folder) / FILES[rival]
    # What it imports of its package is beside it, or not used by it.
    package = types.ModuleType("policy")
    package.__path__ = [str(path.parent)]
    sys.modules["policy"] = package
    for name in ("sglang", "sglang.srt", "sglang.srt.utils"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["sglang.srt.utils"].get_bool_env_var = None
    spec = importlib.util.spec_from_file_location(f"policy.{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def planner(folder, rival):
    """A function of loads (a tensor), nodes and slots that returns the expert of each slot."""
    module = _module(folder, rival)
    if rival == "vllm":
        rebalance = module.DefaultEplbPolicy.rebalance_experts
        return lambda weight, nodes, slots: rebalance(weight, nodes * slots, 1, 1, nodes)
    return lambda weight, nodes, slots: module.rebalance_experts(
        weight, nodes * slots, 1, 1, nodes, enable_hierarchical=False
    )[0]


def copies_of(experts_of_slots, slots):
    """[expert, node, share] for each slot of a layer."""
    count = {}
    for expert in experts_of_slots:
        count[expert] = count.get(expert, 0) + 1
    return [
        [expert, slot // slots, 1 / count[expert]] for slot, expert in enumerate(experts_of_slots)
    ]


def main(rival, folder, path, repeats):
    import torch  # pylint: disable=import-outside-toplevel # not for those who want FILES alone

    torch.set_num_threads(1)
    plan = planner(folder, rival)
    problem = loads.read(path)
    weight = torch.tensor(problem.loads)
    cpu_ms = []
    for _ in range(int(repeats)):
        start = time.process_time()
        experts = plan(weight, problem.nodes, problem.slots)
        cpu_ms.append((time.process_time() - start) * 1e3)
    copies = [copies_of(row, problem.slots) for row in experts.tolist()]
    json.dump({"cpu_ms": cpu_ms, "copies": copies}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
