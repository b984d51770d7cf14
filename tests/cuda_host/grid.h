// Runs all blocks of a launch, and finds blocks that depend on one another.
#ifndef EXPERTMESH_TESTS_CUDA_HOST_GRID_H_
#define EXPERTMESH_TESTS_CUDA_HOST_GRID_H_

#include <cstdint>

#include "tests/cuda_host/block.h"
#include "tests/cuda_host/random.h"

namespace expertmesh::cuda_host {

// Runs the launch on the calling thread, which may touch device memory. Blocks run one after the
// other in an order that `random` chooses. Of launches of 2 to `checked_blocks` blocks, the first 4
// of each kernel and grid and one in 8 of the later ones run several times: first each block from
// the memory as it was before the launch, where no byte may be changed by two of them; then all in
// one order (few blocks: in two opposite orders), which must leave the same bytes. Not checked are
// launches that are given pinned memory, which the host may write to at the same time, and those
// that write many pages.
void RunGrid(const KernelLaunch& launch, uint64_t checked_blocks, Random& random);

}  // namespace expertmesh::cuda_host

#endif  // EXPERTMESH_TESTS_CUDA_HOST_GRID_H_
