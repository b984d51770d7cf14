"""`expertmesh replay` and `expertmesh plan`: loads, recorded or made up, on simulated nodes."""

import json
import math
import pathlib
import struct
import xml.etree.ElementTree

import numpy as np
import pytest

from mesh import cli

ROOT = pathlib.Path(__file__).parents[2]
MODEL = ROOT / "deploy" / "demo_model"
RECORD = ROOT / "tests" / "golden" / "balance" / "record.bin"
CONFIGS = ROOT / "tests" / "golden" / "configs"
LAYERS = {1: 0, 2: 1, 3: 2, 4: 3}  # Position of each layer.
EXPERTS, TOP_K = 32, 4


@pytest.fixture(scope="module")
def counts():
    """Assignments [layer, expert] of the golden recording, by its documented format."""
    data = RECORD.read_bytes()
    (rest,) = struct.unpack_from("<I", data, 12)
    offset, sums = 16 + rest, np.zeros((len(LAYERS), EXPERTS))
    while offset < len(data):
        (size,) = struct.unpack_from("<I", data, offset)
        body = data[offset + 8 : offset + 8 + size]
        _, _, layer, tokens = struct.unpack_from("<QQII", body)
        experts = np.frombuffer(body[36:], np.uint8)
        assert len(experts) == tokens * TOP_K
        np.add.at(sums[LAYERS[layer]], experts, 1)
        offset += 8 + size + 8
    return sums


def replay(tmp_path, *arguments):
    path = tmp_path / "replay.json"
    done = cli("replay", *arguments, "--json", path)
    return json.loads(path.read_text()), done.stdout


def by_name(result):
    return {policy["name"]: policy for policy in result["policies"]}


def test_a_recording_is_replayed_as_it_was(tmp_path, counts):
    arguments = ["--recording", RECORD, "--model", MODEL, "--nodes", 4, "--interval", "10s"]
    result, printed = replay(tmp_path, *arguments)
    assert "80 batches in 1.9 s, measured p50 " in printed
    assert "another bias would do cannot be told" in printed
    policies = by_name(result)
    assert sorted(policies) == ["planner", "static"]
    (interval,) = policies["static"]["intervals"]
    means = counts.mean(axis=1)
    assert interval["max_violation"] == pytest.approx((counts.max(axis=1) / means - 1).mean())
    # Experts are dealt out in turns: node n has those with expert % 4 == n.
    nodes = counts.reshape(len(LAYERS), EXPERTS // 4, 4).sum(axis=1)
    over_mean = nodes.max(axis=1) / nodes.mean(axis=1)
    assert interval["fullest_over_mean"] == pytest.approx(over_mean.mean())
    assert interval["fullest_over_mean_worst_layer"] == pytest.approx(over_mean.max())
    assert interval["copies"] == len(LAYERS) * EXPERTS


def test_the_planner_levels_a_recording_and_its_bytes_count(tmp_path):
    arguments = ["--recording", RECORD, "--model", MODEL, "--nodes", 4]
    result, _ = replay(tmp_path, *arguments, "--interval", "500ms", "--plan-interval", "500ms")
    planner = by_name(result)["planner"]
    first, *_, last = planner["intervals"]
    assert first["moves"] > 0
    expert = plan("--model", MODEL, "--node-memory", "1GiB")["layers"][0]["expert_bytes"]
    assert first["bytes"] == first["moves"] * expert
    assert last["fullest_over_mean"] < first["fullest_over_mean"]


def test_policies_of_a_made_up_load_keep_their_budgets(tmp_path):
    arguments = ["--model", MODEL, "--nodes", 8, "--duration", "30m", "--load", "zipf:1+drift:0.5"]
    result, _ = replay(tmp_path, *arguments, "--quality-budget", 0.05, "--move-budget", "1MiB")
    policies = by_name(result)
    assert sorted(policies) == ["both", "planner", "sign", "static"]
    for name, policy in policies.items():
        for interval in policy["intervals"]:
            assert interval["changed_tokens_worst_layer"] <= (0.05 if name in ("sign", "both") else 0)
            assert interval["bytes"] <= (2**20 if name in ("planner", "both") else 0)
    summaries = {name: policy["summary"] for name, policy in policies.items()}
    assert summaries["sign"]["changed_tokens_worst_layer"] > 0.01
    assert summaries["sign"]["max_violation"] < summaries["static"]["max_violation"]
    assert summaries["planner"]["fullest_over_mean"] < summaries["static"]["fullest_over_mean"]
    assert summaries["planner"]["p50_us"] < summaries["static"]["p50_us"]


def test_the_same_seed_gives_the_same_figures(tmp_path):
    arguments = ["--model", MODEL, "--nodes", 6, "--duration", "5m", "--fail", "1@2m", "--join", "1@3m"]
    results = []
    for threads in (1, 3):
        result, _ = replay(tmp_path, *arguments, "--threads", threads, "--seed", 5)
        for policy in result["policies"]:
            del policy["planning_s"]
        results.append(result)
    assert results[0] == results[1]
    other, _ = replay(tmp_path, *arguments, "--seed", 6)
    assert by_name(other)["static"]["intervals"] != by_name(results[0])["static"]["intervals"]
    failed = by_name(results[0])["static"]["intervals"]
    assert [failed[i]["nodes"] for i in (0, 12, 18)] == [6, 5, 6]
    assert failed[11]["lost_assignments"] == 0 < failed[12]["lost_assignments"]
    planner = by_name(results[0])["planner"]["intervals"]
    assert planner[13]["lost_assignments"] == 0, "its experts were loaded elsewhere"


def test_the_page_stands_alone(tmp_path):
    page = tmp_path / "replay.html"
    cli("replay", "--model", MODEL, "--nodes", 4, "--duration", "5m", "--html", page)
    doctype, _, html = page.read_text().partition("\n")
    assert doctype == "<!DOCTYPE html>"
    root = xml.etree.ElementTree.fromstring(html)
    charts = root.iter("{http://www.w3.org/2000/svg}svg")
    assert sum(1 for _ in charts) >= 8
    assert not [each for each in root.iter() if "src" in each.attrib or "href" in each.attrib]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--recording", RECORD, "--policies", "sign"], "cannot be told without their scores"),
        (["--recording", RECORD, "--load", "uniform"], "--recording and --load are both given"),
        (["--recording", CONFIGS / "mixtral-8x7b" / "config.json"], "is no recording of routing"),
        (["--recording", "/nowhere"], "there is no such recording"),
        (["--recording", RECORD, "--model", CONFIGS / "mixtral-8x7b"], "name the model that was served"),
        (["--load", "zipf"], "use uniform, zipf:EXPONENT"),
        (["--policies", "magic"], "--policies has 'magic'"),
        (["--nodes", 5000], "--nodes is 5000; use at most 4096"),
        (["--fail", "9@10"], "node 9 fails or joins; the mesh has nodes 0 to 7"),
        (["--node-memory", "1MiB"], "use more nodes, more memory or fewer copies"),
        (["--fit"], "--fit takes the times from what --recording names"),
        (["--recording", RECORD, "--fit", "--hop-us", 5], "and none of the times"),
        (["--recording", RECORD, "--fit"], "batches have a duration, of 100 that a fit needs"),
        (["--nodes", 300, "--deal", "shards"], "layer 0 has 256 experts, fewer than the 300 shards"),
        (["--layers", 4000, "--experts", 60000], "the model has 240000000 experts in all layers"),
        (["--tokens-per-second", 1e12], "--tokens-per-second is 1e+12; use at most"),
        (["--expert-bytes", "2TiB"], "--expert-bytes is 2199023255552; use at most"),
        (["--experts", 4000000000, "--top-k", 1], "num_experts is"),
        (["--interval", "0"], "--interval is 0; use 1ms to a year"),
        (["--interval", "9000h"], "--interval is 9000h; use 1ms to a year"),
        (["--duration", "1000h"], "use longer ones, at most 50000 of them"),
    ],
)
def test_what_cannot_be_is_refused(arguments, error):
    done = cli("replay", *arguments, code=1)
    assert error in done.stderr


def test_a_recording_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path):
    short = tmp_path / "record"
    short.write_bytes(RECORD.read_bytes()[:-10])
    result, printed = replay(tmp_path, "--recording", short, "--nodes", 4)
    assert "79 batches" in printed and "cut off within a batch" in printed
    damaged = bytearray(RECORD.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    short.write_bytes(damaged)
    assert "the file is damaged" in cli("replay", "--recording", short, code=1).stderr


def plan(*arguments):
    return json.loads(cli("plan", *arguments, "--json").stdout)


def test_a_plan_says_how_many_nodes():
    answer = plan("--model", MODEL, "--node-memory", "1MiB", "--load", RECORD)
    (expert,) = {layer["expert_bytes"] for layer in answer["layers"]}
    assert answer["bytes"] == len(LAYERS) * EXPERTS * expert
    fewest = answer["fewest_nodes"]
    assert fewest == math.ceil(len(LAYERS) * EXPERTS / (2**20 // expert))
    for mesh in answer["meshes"]:
        assert mesh["fits"]
        assert mesh["node_bytes"] <= 2**20
        assert 1 - 1e-9 <= mesh["lower_bound"] <= mesh["fullest_over_mean"] + 1e-9
        assert "tokens_per_second" not in mesh, "no times were given"
    (small,) = plan("--model", MODEL, "--node-memory", "1MiB", "--nodes", fewest - 1)["meshes"]
    assert not small["fits"] and small["reason"]


def test_a_plan_needs_config_json_alone_and_finds_the_speed():
    arguments = ["--model", CONFIGS / "deepseek-v3", "--node-memory", "64GiB", "--copies", 1]
    answer = plan(*arguments, "--assignment-us", 5, "--tokens-per-second", 30000)
    assert len(answer["layers"]) == 58
    (expert,) = {layer["expert_bytes"] for layer in answer["layers"]}
    assert expert >= 3 * 7168 * 2048 * 2
    assert answer["fewest_nodes"] == math.ceil(58 * 256 / (2**36 // expert))
    fast = answer["fewest_nodes_for_target"]
    meshes = {mesh["nodes"]: mesh for mesh in answer["meshes"]}
    assert meshes[fast]["enough"] and meshes[fast]["tokens_per_second"] >= 30000
    less = plan(*arguments, "--assignment-us", 5, "--tokens-per-second", 30000, "--nodes", fast - 1)
    assert not less["meshes"][0]["enough"]
    # 58 layers x 8 experts of 5 us, and a batch's 60 us in each layer for 256 tokens.
    most = fast * 1e6 / (58 * 8 * 5)
    assert meshes[fast]["tokens_per_second"] < most
    one, two = plan(*arguments[:4], "--copies", 2, "--nodes", "1,99")["meshes"]
    assert not one["fits"] and "2 copies of an expert are on as many nodes" in one["reason"]
    assert two["nodes"] == 99
    printed = cli("plan", *arguments).stdout
    assert f"{expert:,} bytes an expert" in printed
    assert f"fewest nodes of 64 GiB: {answer['fewest_nodes']}\n" in printed


def uses():
    """(layer, expert) of each batch of the golden recording, each once, by its documented format."""
    data = RECORD.read_bytes()
    (rest,) = struct.unpack_from("<I", data, 12)
    offset = 16 + rest
    while offset < len(data):
        (size,) = struct.unpack_from("<I", data, offset)
        body = data[offset + 8 : offset + 8 + size]
        layer = struct.unpack_from("<QQI", body)[2]
        yield sorted({(layer, int(expert)) for expert in body[36:]})
        offset += 8 + size + 8


def lru_hits(room):
    """Hits in a list that holds `room` experts; of those of one batch the later numbers stay longer."""
    held, hits = [], 0
    for batch in uses():
        hits += sum(expert in held for expert in batch)
        held = [expert for expert in held if expert not in batch] + batch
        del held[: max(0, len(held) - room)]
    return hits


def test_caches_of_experts_are_compared(tmp_path):
    arguments = ["--recording", RECORD, "--model", MODEL, "--cache", "25%,100%"]
    results, printed = replay(tmp_path, *arguments)
    found = {(each["cache"], each["policy"]): each for each in results}
    assert list(found)[:4] == [("25%", name) for name in ("lru", "frequency", "predictive", "optimum")]
    count = sum(len(batch) for batch in uses())
    assert {each["uses"] for each in results} == {count}
    everything = len({expert for batch in uses() for expert in batch})
    for (cache, policy), each in found.items():
        if cache == "100%":
            assert each["hits"] == count - everything
        assert each["hits"] <= found[cache, "optimum"]["hits"], policy
    assert found["25%", "lru"]["hits"] == lru_hits(EXPERTS * len(LAYERS) // 4)
    lru = found["25%", "lru"]
    assert lru["loaded_bytes"] == (count - lru["hits"]) * lru["cache_bytes"] * 4 // (EXPERTS * len(LAYERS))
    assert "80 batches of 4 layers" in printed and "optimum" in printed


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--cache", "25%"], "--cache needs --recording"),
        (["--recording", RECORD, "--cache", "125%"], "'125%'; use 0% to 100%"),
        (["--recording", RECORD, "--cache", "some"], "'some' is no size"),
    ],
)
def test_a_cache_that_cannot_be_is_refused(arguments, error):
    assert error in cli("replay", "--model", MODEL, *arguments, code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--node-memory", "1kB"], "use larger nodes"),
        (["--node-memory", "much"], "'much' is no size; write 64GiB"),
        (["--node-memory", "1GiB", "--tokens-per-second", 5], "needs --assignment-us"),
        (["--node-memory", "1GiB", "--assignment-us", 0], "time of an assignment is 0; use more than 0"),
        (["--node-memory", "1GiB", "--nodes", "0"], "0 nodes; use 1 to 4096"),
        (["--node-memory", "1GiB", "--load", "nothing"], "no recording, and load has 'nothing'"),
    ],
)
def test_a_plan_refuses_what_cannot_be(arguments, error):
    done = cli("plan", "--model", MODEL, *arguments, code=1)
    assert error in done.stderr
