"""--device of expertmesh-expert, and nodes that lose their GPU. What plays a GPU is tests/support/fake_cuda_module.cc, or the real backend on
tests/cuda_host, on which a batch takes a while."""

import concurrent.futures
import contextlib
import os
import subprocess

import numpy as np
import pytest

import expertmesh
import reference
from arrays import assert_rows_close, assert_same_bits
from checkpoint import make_checkpoint
from expertmesh.v1 import control_pb2, node_pb2
from mesh import PATIENCE, Mesh, ProcessError, entry, hidden_states, program, shards
from test_failures import Load

MODULE = os.environ.get("EXPERTMESH_FAKE_CUDA_MODULE", "")
ON_HOST = os.environ.get("EXPERTMESH_CUDA_MODULE_ON_HOST", "")


# A batch takes too long when the harness is instrumented; unit tests run it so.
on_host = pytest.mark.skipif(os.environ.get("EXPERTMESH_SANITIZE", "") != "", reason="instrumented")


def variables(words="", module=None):
    return {"EXPERTMESH_CUDA_MODULE": module or MODULE, "EXPERTMESH_FAKE_GPU": words}


@contextlib.contextmanager
def with_gpu(mesh, words, module=None):
    """Nodes made inside have a GPU that does as it is told."""
    told = variables(words, module) | {"EXPERTMESH_CUDA_HOST": words}
    mesh.launcher = ["env", *(f"{name}={value}" for name, value in told.items())]
    yield
    mesh.launcher = []


@pytest.mark.parametrize(
    "words, module, said",
    [
        ("", "/nowhere/libexpertmesh_cuda.so", "this program was built without CUDA"),
        ("no_driver", None, "cudaGetDeviceCount: CUDA driver version is insufficient"),
        ("devices=0", None, "there is no GPU that this process can see"),
        ("other_build", None, "is of 0.0.1"),
    ],
)
def test_without_a_gpu_a_node_ends_with_one_line(checkpoint, words, module, said):
    done = subprocess.run(
        [program("expert"), "--model", checkpoint.path, "--device", "cuda:0", "--log-level", "error"],
        env=os.environ | variables(words, module),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    lines = (done.stdout + done.stderr).splitlines()
    assert len(lines) == 1 and "--device=cuda:0: " in lines[0] and said in lines[0], lines


def test_auto_takes_the_cpu_and_says_why(mesh, checkpoint):
    with with_gpu(mesh, "no_driver"):
        mesh.start(checkpoint.path, [["--device", "auto"]])
    node = mesh.nodes[0]
    assert "computing on the CPU: cudaGetDeviceCount: CUDA driver version is insufficient" in node.log()
    assert entry(mesh.client.topology(), node).description.backend == "cpu"
    assert node.metric("expertmesh_expert_device_memory_total_bytes") == 0


def test_a_lost_device_costs_no_request_that_has_a_replica(mesh, checkpoint):
    with with_gpu(mesh, "lost_after=200"):
        gpu = mesh.make_node(checkpoint.path, *shards(2, "--replicas", "2")[0], "--device", "cuda:0").start()
    assert gpu.metric("expertmesh_expert_device_memory_total_bytes") == 4000
    mesh.start_node(checkpoint.path, *shards(2, "--replicas", "2")[1])
    mesh.start_router(checkpoint.path)
    mesh.watch(lambda topology: entry(topology, gpu).description.backend == "cuda", "its backend is known")
    with Load(mesh, checkpoint) as load:
        # It ends by itself, as its supervisor expects.
        assert gpu.wait() == 1
        mesh.watch(
            lambda topology: entry(topology, gpu).link == control_pb2.NODE_LINK_DOWN, "it is missed"
        )
        load.wait_for(100)
        # What a supervisor does: a new process has a new context on the device.
        gpu.argv = [argument for argument in gpu.argv if "FAKE_GPU" not in argument]
        gpu.start()
        mesh.watch(lambda topology: entry(topology, gpu).link == control_pb2.NODE_LINK_UP, "it is back")
        load.wait_for(20)
    assert load.errors == []
    log = gpu.log()
    assert "the device is lost: cudaStreamSynchronize: unspecified launch failure" in log
    assert mesh.router.metric("expertmesh_router_requests_total", code="OK") == load.answered


def test_a_device_that_never_answers_does_not_keep_the_process(mesh, checkpoint):
    with with_gpu(mesh, "lost_after=0 hangs"):
        mesh.start(checkpoint.path, [["--device", "cuda", "--drain-timeout", "60s"]])
    node = mesh.nodes[0]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(mesh.client.forward, 0, np.ones((4, checkpoint.d_model), np.float32))
        # Meanwhile routers know why, and that it holds nothing.
        topology = mesh.watch(
            lambda topology: entry(topology, node).description.state == node_pb2.NODE_STATE_FAILED, "it says so"
        )
        told = entry(topology, node).description
        assert told.message == "the device is lost: cudaStreamSynchronize: unspecified launch failure"
        assert not told.hosted and topology.missing
        assert node.wait() == 1
        with pytest.raises(expertmesh.Unavailable):
            asked.result()
    assert "the lost device keeps the process from ending" in node.log()


@on_host
def test_the_real_backend_answers_right_and_each_row_has_its_bits(mesh, checkpoint):
    with with_gpu(mesh, "", ON_HOST):
        mesh.start(checkpoint.path, shards(2, "--device", "cuda:0"))
    x = hidden_states(9, checkpoint.d_model)
    expected, _ = reference.forward(checkpoint, 0, x)
    output = mesh.client.forward(0, x).output
    assert_rows_close(output, expected, 1e-5)
    assert_same_bits(mesh.client.forward(0, x[4:5]).output, output[4:5])
    assert all("F32 by cuda_host, like an H100" in node.log() for node in mesh.nodes)
    assert mesh.nodes[0].metric("expertmesh_expert_device_memory_used_bytes") > 0
    assert mesh.nodes[0].metric("expertmesh_expert_device_errors_total") == 0


@on_host
def test_a_sticky_error_of_the_real_backend_costs_no_request(mesh, checkpoint):
    with with_gpu(mesh, "sticky=2", ON_HOST):
        gpu = mesh.start_node(checkpoint.path, "--device", "cuda:0")
    mesh.start_node(checkpoint.path)
    mesh.start_router(checkpoint.path)
    mesh.watch(lambda topology: all(node.description.backend for node in topology.nodes), "both are known")
    with Load(mesh, checkpoint, callers=2) as load:
        assert gpu.wait() == 1
        load.wait_for(20)
    assert load.errors == []
    assert "the device is lost: " in gpu.log() and "cudaErrorIllegalAddress" in gpu.log()


@on_host
def test_a_driver_that_is_missing_is_told_by_the_real_backend(mesh, checkpoint):
    with with_gpu(mesh, "no_driver", ON_HOST):
        mesh.start(checkpoint.path, [["--device", "auto"]])
    assert "cudaErrorInsufficientDriver" in mesh.nodes[0].log()


@on_host
def test_experts_beyond_the_memory_of_the_device_are_uploaded_when_they_are_needed(mesh, tmp_path):
    checkpoint = make_checkpoint(tmp_path / "model", "qwen3_moe", layers=3, experts=6, top_k=2)
    with with_gpu(mesh, "", ON_HOST):
        mesh.start(checkpoint.path, [["--device", "cuda:0", "--threads", "1"]])
        (everything,) = mesh.nodes
        each = everything.metric("expertmesh_expert_weights_loaded_bytes") / 18
        (tmp_path / "small").mkdir()
        with Mesh(tmp_path / "small") as small:
            small.launcher = mesh.launcher
            small.start(checkpoint.path, [["--device", "cuda:0", "--device-memory", int(8 * each)]])
            (node,) = small.nodes
            for layer in (*checkpoint.moe_layers, *checkpoint.moe_layers):
                x = hidden_states(5, checkpoint.d_model, seed=layer)
                answers = [m.client.forward(layer, x).output for m in (small, mesh)]
                assert_same_bits(*answers)
            assert node.metric("expertmesh_expert_cache_resident_bytes") <= 8 * each
            assert node.metric("expertmesh_expert_cache_misses_total") > 0


@on_host
def test_a_layer_must_fit_on_the_device(mesh, checkpoint):
    with with_gpu(mesh, "", ON_HOST), pytest.raises(ProcessError, match="layer 0 takes .* --device-memory.* is 10000;"):
        mesh.start_node(checkpoint.path, "--device", "cuda:0", "--device-memory", 10000)


def test_each_device_has_its_own_flag_for_memory(mesh, checkpoint):
    with with_gpu(mesh, ""), pytest.raises(ProcessError, match="--memory=1000 is for --device=cpu"):
        mesh.start_node(checkpoint.path, "--device", "cuda:0", "--memory", 1000)
    with pytest.raises(ProcessError, match="--device-memory is for GPUs"):
        mesh.start_node(checkpoint.path, "--device-memory", 1000)
