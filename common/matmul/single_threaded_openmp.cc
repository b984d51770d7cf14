#include "common/matmul/single_threaded_openmp.h"

// From libgomp, the OpenMP that oneDNN is built with. Not through omp.h, which comes with a
// compiler.
extern "C" {
void omp_set_num_threads(int threads);
int omp_get_max_threads(void);
}

namespace expertmesh {

void UseSingleThreadedOpenMP() { omp_set_num_threads(1); }

SingleThreadedOpenMP::SingleThreadedOpenMP() : before_(omp_get_max_threads()) {
  UseSingleThreadedOpenMP();
}

SingleThreadedOpenMP::~SingleThreadedOpenMP() { omp_set_num_threads(before_); }

}  // namespace expertmesh
