// A product by oneDNN, for ours to be held against.
#ifndef EXPERTMESH_TESTS_BENCH_BASELINES_ONEDNN_PRODUCT_H_
#define EXPERTMESH_TESTS_BENCH_BASELINES_ONEDNN_PRODUCT_H_

#include <cstddef>
#include <memory>

#include "common/tensor/dtype.h"

namespace expertmesh::bench {

// [rows, inner] by [inner, columns], of zeros, packed as oneDNN wants it. One thread at a time.
class OneDnnProduct {
 public:
  // `dtype` is kF32 or kBF16. Null where oneDNN has no such product for this CPU.
  static std::unique_ptr<OneDnnProduct> Create(Dtype dtype, size_t rows, size_t inner,
                                               size_t columns);
  virtual ~OneDnnProduct() = default;

  // On the calling thread alone.
  virtual void Run() = 0;
};

}  // namespace expertmesh::bench

#endif  // EXPERTMESH_TESTS_BENCH_BASELINES_ONEDNN_PRODUCT_H_
