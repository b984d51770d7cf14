"""The CUDA backend, as the harness of tests/cuda_host executes it."""

from mutation import Mutation
from operators import (
    delete_statement,
    force,
    keep_left,
    keep_right,
    replace_argument,
    replace_name,
    replace_return,
    set_value,
    swap_branches,
)

BACKEND = "cuda_backend_test"
CONFORMANCE = "cuda_conformance_test"
FAULTS = "cuda_faults_test"
PRODUCTS = "cuda_products_test"
EDGES = "*EdgesMatch*"

MUTATIONS = (
    Mutation(
        "results are not copied back",
        "BatchSlot::Enqueue",
        replace_return("absl::OkStatus()", touches="cudaMemcpyDeviceToHost"),
        BACKEND,
        EDGES,
    ),
    Mutation(
        "a batch is not copied to the device",
        "BatchSlot::Enqueue",
        delete_statement(touches="cudaMemcpyHostToDevice"),
        BACKEND,
        EDGES,
    ),
    Mutation(
        "results are read before they are there",
        "BatchSlot::Finish",
        delete_statement(touches="Synchronize"),
        BACKEND,
        EDGES,
    ),
    Mutation(
        "staging memory is filled again before it was copied",
        "ExpertUploader::EnqueueGroups",
        delete_statement(touches="Synchronize"),
        CONFORMANCE,
        "*LargeExpert*seed1",
    ),
    Mutation(
        "an expert is there before it was copied",
        "ExpertUploader::Upload",
        set_value("status", "absl::OkStatus()", touches="Synchronize"),
        BACKEND,
        "*PackedExpertsAreThere*",
    ),
    Mutation(
        "cuBLAS: the leading dimension of activations is that of their own expert",
        "CublasProduct::AddGroups",
        replace_argument("Add", 4, "expert.down.inner", touches="down_"),
        CONFORMANCE,
        "*MixesSlicesAndWidths*cublas*",
    ),
    Mutation(
        "a grid without the blocks of the last rows",
        "ShapeOf",
        keep_left("+", touches="most_rows"),
        BACKEND,
        EDGES,
    ),
    Mutation(
        "blocks write their tokens over those of other blocks",
        "StoreSums",
        keep_right("+", touches="begin"),
        BACKEND,
        EDGES,
    ),
    Mutation(
        "stages of shared memory are overwritten while others read them",
        "WideProductBf16",
        delete_statement(touches="__syncthreads"),
        PRODUCTS,
    ),
    Mutation(
        "memory of the device is not freed",
        "DeviceMemory::Free",
        delete_statement(touches="cudaFree"),
        BACKEND,
        "*LeavesNothingBehind*",
    ),
    Mutation(
        "a lost device is forgotten",
        "DeviceState::Observe",
        delete_statement(touches="lost_", within="lost_"),
        FAULTS,
    ),
    Mutation(
        "work goes on under a batch that ended with an error",
        "Settle",
        force(True, touches="IsDeviceLost", nth=1),
        FAULTS,
    ),
    Mutation(
        "the two instructions of a step have one another's weights",
        "ArrangeFragments",
        replace_name("instruction", "(1 - instruction)", touches="4"),
        BACKEND,
        EDGES,
    ),
    Mutation(
        "rows are not multiplied by weights of their experts' inputs",
        "Gather",
        force(False, touches="scale"),
        CONFORMANCE,
        "*ApplyWeight*seed1",
    ),
    Mutation(
        "gate and up of the biases swapped",
        "PackedUpBias",
        swap_branches(touches=("gate", "up")),
        CONFORMANCE,
        "*KindsAndStoragesMix*seed1",
    ),
)
