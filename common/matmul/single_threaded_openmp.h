// oneDNN in Debian runs each product on OpenMP's threads. Work is divided by products here, not
// inside one.
#ifndef EXPERTMESH_COMMON_MATMUL_SINGLE_THREADED_OPENMP_H_
#define EXPERTMESH_COMMON_MATMUL_SINGLE_THREADED_OPENMP_H_

namespace expertmesh {

// Turns OpenMP's threads off for the calling thread, for good.
void UseSingleThreadedOpenMP();

// The same while it lives, for threads that are not ours.
class SingleThreadedOpenMP {
 public:
  SingleThreadedOpenMP();
  ~SingleThreadedOpenMP();
  SingleThreadedOpenMP(const SingleThreadedOpenMP&) = delete;
  SingleThreadedOpenMP& operator=(const SingleThreadedOpenMP&) = delete;

 private:
  const int before_;
};

}  // namespace expertmesh

#endif  // EXPERTMESH_COMMON_MATMUL_SINGLE_THREADED_OPENMP_H_
