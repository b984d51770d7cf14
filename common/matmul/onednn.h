// The one engine of oneDNN in a process.
#ifndef EXPERTMESH_COMMON_MATMUL_ONEDNN_H_
#define EXPERTMESH_COMMON_MATMUL_ONEDNN_H_

#include <oneapi/dnnl/dnnl.hpp>

namespace expertmesh {

// Thread-safe. oneDNN uses what UsableCpuIsa() allows if this is its first use in the process,
// which it is where all uses begin here. Lives for ever: threads of other objects may compute at
// exit.
const dnnl::engine& OneDnnEngine();

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_MATMUL_ONEDNN_H_
