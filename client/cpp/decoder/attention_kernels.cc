#include "client/cpp/decoder/attention_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "common/base/cpu_features.h"
#include "common/base/fast_exp.h"

// One body for all instruction sets: each variant inlines it into a function of its own target.
#define EXPERTMESH_INLINE inline __attribute__((always_inline))

namespace expertmesh::decoder {
namespace {

// Keys that are looked at together, and columns of a tile.
constexpr size_t kBlock = 64;
// Queries of a tile: with kBlock columns, as many sums as there are wide registers to spare.
constexpr size_t kTile = 4;
constexpr size_t kLanes = 16;
using Vector = float __attribute__((vector_size(kLanes * sizeof(float))));

EXPERTMESH_INLINE void Load(const float* from, Vector* to) { std::memcpy(to, from, sizeof(*to)); }
EXPERTMESH_INLINE void Store(const Vector& from, float* to) {
  std::memcpy(to, &from, sizeof(from));
}

EXPERTMESH_INLINE float Dot(const float* a, const float* b, size_t count) {
  Vector sums[2] = {};
  size_t i = 0;
  for (; i + 2 * kLanes <= count; i += 2 * kLanes) {
    for (size_t part = 0; part < 2; ++part) {
      Vector x;
      Vector y;
      Load(a + i + part * kLanes, &x);
      Load(b + i + part * kLanes, &y);
      sums[part] += x * y;
    }
  }
  float lanes[kLanes];
  Store(sums[0] + sums[1], lanes);
  for (size_t j = 0; i < count; ++i, j = (j + 1) % kLanes) {
    lanes[j] += a[i] * b[i];
  }
  for (size_t width = kLanes / 2; width > 0; width /= 2) {
    for (size_t j = 0; j < width; ++j) {
      lanes[j] += lanes[j + width];
    }
  }
  return lanes[0];
}

EXPERTMESH_INLINE void AddScaled(float factor, const float* __restrict in, size_t count,
                                 float* __restrict sum) {
  for (size_t i = 0; i < count; ++i) {
    sum[i] += factor * in[i];
  }
}

// c [kRows, kVectors * kLanes] += a [kRows, depth] b [depth, ...].
template <size_t kRows, size_t kVectors>
EXPERTMESH_INLINE void Tile(size_t depth, const float* a, size_t a_stride, const float* b,
                            size_t b_stride, float* c, size_t c_stride) {
  Vector sums[kRows][kVectors];
  for (size_t row = 0; row < kRows; ++row) {
    for (size_t v = 0; v < kVectors; ++v) {
      Load(c + row * c_stride + v * kLanes, &sums[row][v]);
    }
  }
  for (size_t i = 0; i < depth; ++i) {
    Vector columns[kVectors];
    for (size_t v = 0; v < kVectors; ++v) {
      Load(b + i * b_stride + v * kLanes, &columns[v]);
    }
    for (size_t row = 0; row < kRows; ++row) {
      const Vector factor = a[row * a_stride + i] - Vector{};
      for (size_t v = 0; v < kVectors; ++v) {
        sums[row][v] += factor * columns[v];
      }
    }
  }
  for (size_t row = 0; row < kRows; ++row) {
    for (size_t v = 0; v < kVectors; ++v) {
      Store(sums[row][v], c + row * c_stride + v * kLanes);
    }
  }
}

template <size_t kRows>
EXPERTMESH_INLINE void TileColumns(size_t depth, const float* a, size_t a_stride, const float* b,
                                   size_t b_stride, size_t columns, float* c, size_t c_stride) {
  size_t column = 0;
  for (; column + 4 * kLanes <= columns; column += 4 * kLanes) {
    Tile<kRows, 4>(depth, a, a_stride, b + column, b_stride, c + column, c_stride);
  }
  for (; column + kLanes <= columns; column += kLanes) {
    Tile<kRows, 1>(depth, a, a_stride, b + column, b_stride, c + column, c_stride);
  }
  for (; column < columns; ++column) {
    for (size_t row = 0; row < kRows; ++row) {
      float sum = c[row * c_stride + column];
      for (size_t i = 0; i < depth; ++i) {
        sum += a[row * a_stride + i] * b[i * b_stride + column];
      }
      c[row * c_stride + column] = sum;
    }
  }
}

// c [rows, columns] += a [rows, depth] b [depth, columns]. An element's sum runs in one order,
// however many rows there are.
EXPERTMESH_INLINE void MultiplyAdd(size_t rows, size_t depth, const float* a, size_t a_stride,
                                   const float* b, size_t b_stride, size_t columns, float* c,
                                   size_t c_stride) {
  size_t row = 0;
  for (; row + kTile <= rows; row += kTile) {
    TileColumns<kTile>(depth, a + row * a_stride, a_stride, b, b_stride, columns,
                       c + row * c_stride, c_stride);
  }
  for (; row < rows; ++row) {
    TileColumns<1>(depth, a + row * a_stride, a_stride, b, b_stride, columns, c + row * c_stride,
                   c_stride);
  }
}

// What a query has seen so far: its highest score, and the sum of exp(score - highest).
struct Seen {
  float highest = -std::numeric_limits<float>::infinity();
  float sum = 0.0f;
};

EXPERTMESH_INLINE float HighestOf(const float* scores) {
  Vector highest;
  Load(scores, &highest);
  for (size_t v = 1; v < kBlock / kLanes; ++v) {
    Vector next;
    Load(scores + v * kLanes, &next);
    highest = next > highest ? next : highest;
  }
  float lanes[kLanes];
  Store(highest, lanes);
  float best = lanes[0];
  for (const float lane : lanes) {
    best = lane > best ? lane : best;
  }
  return best;
}

EXPERTMESH_INLINE float SumOf(const float* weights) {
  Vector sum = {};
  for (size_t v = 0; v < kBlock / kLanes; ++v) {
    Vector next;
    Load(weights + v * kLanes, &next);
    sum += next;
  }
  float lanes[kLanes];
  Store(sum, lanes);
  float total = 0.0f;
  for (const float lane : lanes) {
    total += lane;
  }
  return total;
}

// Turns the scores of keys [first, first + kBlock) into weights; those it does not see become 0.
// Rescales what was summed with another highest score.
EXPERTMESH_INLINE void Weigh(const AttendingQuery& query, size_t first, float scale,
                             size_t value_width, float* scores, float* out, Seen* seen) {
  // The query sees the places [from, to) of this block.
  const size_t from = std::min(kBlock, query.begin > first ? query.begin - first : 0);
  const size_t to = std::max(from, std::min(kBlock, query.end > first ? query.end - first : 0));
  const auto hide = [&](float value) {
    std::fill(scores, scores + from, value);
    std::fill(scores + to, scores + kBlock, value);
  };
  if (from == to) {
    std::fill(scores, scores + kBlock, 0.0f);
    return;
  }
  for (size_t t = 0; t < kBlock; ++t) {
    scores[t] *= scale;
  }
  hide(-std::numeric_limits<float>::infinity());
  const float block_highest = HighestOf(scores);
  const float highest = block_highest > seen->highest ? block_highest : seen->highest;
  for (size_t t = 0; t < kBlock; ++t) {
    scores[t] = FastExp(scores[t] - highest);
  }
  hide(0.0f);
  const float before = seen->sum == 0.0f ? 0.0f : FastExp(seen->highest - highest);
  if (before != 1.0f) {
    for (size_t i = 0; i < value_width; ++i) {
      out[i] *= before;
    }
  }
  seen->sum = seen->sum * before + SumOf(scores);
  seen->highest = highest;
}

// One step of turning kLanes rows into columns: rows kApart apart swap every other run of kApart
// elements.
template <size_t kApart, size_t... kLane>
EXPERTMESH_INLINE void Swap(Vector* a, Vector* b, std::index_sequence<kLane...>) {
  const Vector low =
      __builtin_shufflevector(*a, *b,
                              (kLane & kApart) == 0 ? static_cast<int>(kLane)
                                                    : static_cast<int>(kLane - kApart + kLanes)...);
  *b = __builtin_shufflevector(*a, *b,
                               (kLane & kApart) == 0 ? static_cast<int>(kLane + kApart)
                                                     : static_cast<int>(kLane + kLanes)...);
  *a = low;
}

template <size_t kApart>
EXPERTMESH_INLINE void SwapAll(Vector (&rows)[kLanes]) {
  for (size_t row = 0; row < kLanes; ++row) {
    if ((row & kApart) == 0) {
      Swap<kApart>(&rows[row], &rows[row + kApart], std::make_index_sequence<kLanes>());
    }
  }
}

// keys [kBlock, width] the other way round, [width, kBlock]; rows from `count` on are zeros.
EXPERTMESH_INLINE void Transpose(const float* keys, size_t stride, size_t count, size_t width,
                                 float* out) {
  const size_t whole = width / kLanes * kLanes;
  for (size_t t = 0; t < kBlock; t += kLanes) {
    for (size_t i = 0; i < whole; i += kLanes) {
      Vector rows[kLanes] = {};
      for (size_t row = 0; row < kLanes && t + row < count; ++row) {
        Load(keys + (t + row) * stride + i, &rows[row]);
      }
      SwapAll<1>(rows);
      SwapAll<2>(rows);
      SwapAll<4>(rows);
      SwapAll<8>(rows);
      for (size_t column = 0; column < kLanes; ++column) {
        Store(rows[column], out + (i + column) * kBlock + t);
      }
    }
  }
  for (size_t i = whole; i < width; ++i) {
    for (size_t t = 0; t < kBlock; ++t) {
      out[i * kBlock + t] = t < count ? keys[t * stride + i] : 0.0f;
    }
  }
}

EXPERTMESH_INLINE void Attend(const AttendedRows& rows, const AttendingQuery* queries, size_t count,
                              float scale, AttentionScratch* scratch) {
  size_t begin = queries[0].begin;
  size_t end = queries[0].end;
  for (size_t q = 0; q < count; ++q) {
    begin = std::min(begin, queries[q].begin);
    end = std::max(end, queries[q].end);
  }
  const size_t key_width = rows.key_width;
  const size_t value_width = rows.value_width;
  scratch->keys.resize(key_width * kBlock);
  scratch->queries.resize(count * key_width);
  scratch->scores.resize(count * kBlock);
  scratch->sums.assign(count * value_width, 0.0f);
  for (size_t q = 0; q < count; ++q) {
    std::copy(queries[q].query, queries[q].query + key_width,
              scratch->queries.data() + q * key_width);
  }
  std::vector<Seen> seen(count);
  // Blocks begin at multiples of kBlock, whatever the queries see: that fixes the order of sums.
  for (size_t first = begin / kBlock * kBlock; first < end; first += kBlock) {
    const size_t here = std::min(kBlock, end - first);
    Transpose(rows.keys + first * rows.key_stride, rows.key_stride, here, key_width,
              scratch->keys.data());
    std::fill(scratch->scores.begin(), scratch->scores.end(), 0.0f);
    MultiplyAdd(count, key_width, scratch->queries.data(), key_width, scratch->keys.data(), kBlock,
                kBlock, scratch->scores.data(), kBlock);
    for (size_t q = 0; q < count; ++q) {
      Weigh(queries[q], first, scale, value_width, scratch->scores.data() + q * kBlock,
            scratch->sums.data() + q * value_width, &seen[q]);
    }
    MultiplyAdd(count, here, scratch->scores.data(), kBlock,
                rows.values + first * rows.value_stride, rows.value_stride, value_width,
                scratch->sums.data(), value_width);
  }
  for (size_t q = 0; q < count; ++q) {
    for (size_t i = 0; i < value_width; ++i) {
      queries[q].out[i] = scratch->sums[q * value_width + i] / seen[q].sum;
    }
  }
}

EXPERTMESH_INLINE void RmsNorm(const float* x, const float* weight, float epsilon, size_t count,
                               float* out) {
  const float mean = Dot(x, x, count) / static_cast<float>(count);
  const float factor = 1.0f / std::sqrt(mean + epsilon);
  for (size_t i = 0; i < count; ++i) {
    out[i] = x[i] * factor * weight[i];
  }
}

#define EXPERTMESH_VARIANT(NAME, TARGET)                                                           \
  struct NAME {                                                                                    \
    TARGET static float DotOf(const float* a, const float* b, size_t count) {                      \
      return Dot(a, b, count);                                                                     \
    }                                                                                              \
    TARGET static void AddScaledOf(float factor, const float* in, size_t count, float* sum) {      \
      AddScaled(factor, in, count, sum);                                                           \
    }                                                                                              \
    TARGET static void AttendOf(const AttendedRows& rows, const AttendingQuery* queries,           \
                                size_t count, float scale, AttentionScratch* scratch) {            \
      Attend(rows, queries, count, scale, scratch);                                                \
    }                                                                                              \
    TARGET static void RmsNormOf(const float* x, const float* weight, float epsilon, size_t count, \
                                 float* out) {                                                     \
      RmsNorm(x, weight, epsilon, count, out);                                                     \
    }                                                                                              \
    static constexpr AttentionKernels kKernels = {&DotOf, &AddScaledOf, &AttendOf, &RmsNormOf};    \
  };

EXPERTMESH_VARIANT(Portable, )
#if defined(__x86_64__)
EXPERTMESH_VARIANT(Avx2, __attribute__((target("avx2,fma"))))
EXPERTMESH_VARIANT(Avx512, __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq"))))
#endif

}  // namespace

std::vector<const AttentionKernels*> AllAttentionKernels() {
  std::vector<const AttentionKernels*> all = {&Portable::kKernels};
#if defined(__x86_64__)
  if (CpuHasAvx2()) {
    all.push_back(&Avx2::kKernels);
  }
  if (CpuHasAvx512()) {
    all.push_back(&Avx512::kKernels);
  }
#endif
  return all;
}

const AttentionKernels& GetAttentionKernels() {
  static const AttentionKernels* const kWidest = AllAttentionKernels().back();
  return *kWidest;
}

}  // namespace expertmesh::decoder
