// The inner loops of a decoder, for the widest vectors that this machine has.
#ifndef EXPERTMESH_CLIENT_CPP_DECODER_ATTENTION_KERNELS_H_
#define EXPERTMESH_CLIENT_CPP_DECODER_ATTENTION_KERNELS_H_

#include <cstddef>
#include <vector>

namespace expertmesh::decoder {

// Rows of the keys and values of one sequence that some queries look at: row t of the keys is at
// keys + t * key_stride, and so for values, which may be a part of the keys.
struct AttendedRows {
  const float* keys = nullptr;
  size_t key_stride = 0;
  size_t key_width = 0;
  const float* values = nullptr;
  size_t value_stride = 0;
  size_t value_width = 0;
};

// One query: `key_width` floats at `query`, sees rows [begin, end) (at least one), and its result
// is written to `value_width` floats at `out`.
struct AttendingQuery {
  const float* query = nullptr;
  size_t begin = 0;
  size_t end = 0;
  float* out = nullptr;
};

// Memory of one thread, kept between calls.
struct AttentionScratch {
  std::vector<float> keys;
  std::vector<float> queries;
  std::vector<float> scores;
  std::vector<float> sums;
};

struct AttentionKernels {
  // sum of a[i] * b[i].
  float (*dot)(const float* a, const float* b, size_t count);
  // sum[i] += factor * in[i].
  void (*add_scaled)(float factor, const float* in, size_t count, float* sum);
  // out = softmax(scale * keys query) values, for each query. Keys are read once for all of them.
  // A query's bits depend on what it sees alone.
  void (*attend)(const AttendedRows& rows, const AttendingQuery* queries, size_t count, float scale,
                 AttentionScratch* scratch);
  // out = x / sqrt(mean(x^2) + epsilon) * weight; `out` may be `x`.
  void (*rms_norm)(const float* x, const float* weight, float epsilon, size_t count, float* out);
};

// Never changes while the process runs.
const AttentionKernels& GetAttentionKernels();

// All that this machine can run, the widest last.
std::vector<const AttentionKernels*> AllAttentionKernels();

}  // namespace expertmesh::decoder

#endif  // EXPERTMESH_CLIENT_CPP_DECODER_ATTENTION_KERNELS_H_
