#include "common/gate/row_kernels.h"

#include <cstring>
#include <limits>
#include <utility>

#include "common/base/cpu_features.h"
#include "common/gate/row_vectors.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace expertmesh::gate {
namespace {

using namespace row_vectors;  // NOLINT: the vocabulary of this file.

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// More keys than this tie with or beat the estimated k-th largest only if many are equal.
constexpr size_t kMaxCandidates = 64;

EXPERTMESH_INLINE void PadRow(float* row, size_t count, float value) {
  for (size_t i = count; i < PaddedRow(count); ++i) {
    row[i] = value;
  }
}

template <typename Width>
EXPERTMESH_INLINE void SoftmaxBody(float* row, size_t count) {
  using Floats = typename Width::Floats;
  PadRow(row, count, -kInfinity);
  Floats largest[kParts<Width>];
  Floats sum[kParts<Width>];
  for (size_t p = 0; p < kParts<Width>; ++p) {
    largest[p] = Floats{} - kInfinity;
    sum[p] = Floats{};
  }
  Floats x;
  for (size_t i = 0; i < count; i += kRowLanes) {
    for (size_t p = 0; p < kParts<Width>; ++p) {
      Load(row + i + p * kLanes<Width>, x);
      Larger::Apply(largest[p], x);
    }
  }
  Fold<Larger, Width>(largest);
  for (size_t i = 0; i < count; i += kRowLanes) {
    for (size_t p = 0; p < kParts<Width>; ++p) {
      Load(row + i + p * kLanes<Width>, x);
      x = x - largest[0];
      Exp<Width>(x);
      sum[p] = sum[p] + x;
      Store(x, row + i + p * kLanes<Width>);
    }
  }
  Fold<Add, Width>(sum);
  const Floats inverse = 1.0f / sum[0];
  for (size_t i = 0; i < PaddedRow(count); i += kLanes<Width>) {
    Load(row + i, x);
    x = x * inverse;
    Store(x, row + i);
  }
}

template <typename Width>
EXPERTMESH_INLINE void SigmoidBody(float* row, size_t count) {
  PadRow(row, count, 0.0f);
  typename Width::Floats x;
  for (size_t i = 0; i < PaddedRow(count); i += kLanes<Width>) {
    Load(row + i, x);
    x = -x;
    Exp<Width>(x);
    x = 1.0f / (1.0f + x);
    Store(x, row + i);
  }
}

template <typename Width>
EXPERTMESH_INLINE void OrderKeysBody(const float* row, size_t count, int32_t* keys) {
  size_t i = 0;
  for (; i + kLanes<Width> <= count; i += kLanes<Width>) {
    typename Width::Floats value;
    typename Width::Ints key;
    Load(row + i, value);
    OrderKey<Width>(value, key);
    Store(key, keys + i);
  }
  for (; i < count; ++i) {
    keys[i] = OrderKeyOf(row[i]);
  }
  for (; i < PaddedRow(count); ++i) {
    keys[i] = kPadKey;
  }
}

// A lower bound of the k-th largest key, close to it: the k-th largest of the sixteen lanes'
// maxima.
template <typename Width>
EXPERTMESH_INLINE int32_t Threshold(const int32_t* keys, size_t count, size_t k) {
  using Ints = typename Width::Ints;
  Ints maxima[kParts<Width>];
  Ints larger[kParts<Width>];  // Per lane, how many lanes beat it, negative.
  for (size_t p = 0; p < kParts<Width>; ++p) {
    maxima[p] = Ints{} + kPadKey;
    larger[p] = Ints{};
  }
  for (size_t i = 0; i < count; i += kRowLanes) {
    for (size_t p = 0; p < kParts<Width>; ++p) {
      Ints key;
      Load(keys + i + p * kLanes<Width>, key);
      Larger::Apply(maxima[p], key);
    }
  }
  int32_t lanes[kRowLanes];
  std::memcpy(lanes, maxima, sizeof(lanes));
#pragma GCC unroll 16
  for (size_t i = 0; i < kRowLanes; ++i) {
    for (size_t p = 0; p < kParts<Width>; ++p) {
      larger[p] += (Ints{} + lanes[i]) > maxima[p];
    }
  }
  for (size_t p = 0; p < kParts<Width>; ++p) {
    maxima[p] = -larger[p] < static_cast<int32_t>(k) ? maxima[p] : Ints{} + kNanKey;
  }
  Fold<Smaller, Width>(maxima);
  return maxima[0][0];
}

// Keys and their indices, with room for what is written past them before they are counted.
struct Candidates {
  int32_t keys[kMaxCandidates + 2 * kRowLanes];
  uint32_t indices[kMaxCandidates + 2 * kRowLanes];
};

// Keys not below `threshold`, indices ascending. Returns how many; gives up past kMaxCandidates.
EXPERTMESH_INLINE size_t Collect(const int32_t* keys, size_t count, int32_t threshold,
                                 Candidates& found) {
  size_t n = 0;
  for (size_t i = 0; i < count && n <= kMaxCandidates; i += kRowLanes) {
    for (size_t lane = 0; lane < kRowLanes; ++lane) {
      found.keys[n] = keys[i + lane];
      found.indices[n] = static_cast<uint32_t>(i + lane);
      n += keys[i + lane] >= threshold;
    }
  }
  return n;
}

// Writes the k best of n candidates (indices ascending), best first: a candidate's rank is how many
// beat it, so each has its own. Padding is beaten by all of them.
template <typename Width>
EXPERTMESH_INLINE void Rank(Candidates& found, size_t n, size_t k, uint32_t* ids) {
  using Ints = typename Width::Ints;
  for (size_t i = 0; i < kRowLanes; ++i) {
    found.keys[n + i] = kPadKey;
    found.indices[n + i] = 0;
  }
  uint32_t ranked[kMaxCandidates + 1];
  for (size_t i = 0; i < n; i += kLanes<Width>) {
    Ints mine;
    Load(found.keys + i, mine);
    const Ints below = mine - (mine > kPadKey ? Ints{} + 1 : Ints{});
    const Ints position = Width::kIota + static_cast<int32_t>(i);
    Ints beaten = {};
    // Padding too, which beats nothing: how many there are to compare with is hard to predict.
    for (size_t block = 0; block < n; block += kRowLanes) {
#pragma GCC unroll 16
      for (size_t j = block; j < block + kRowLanes; ++j) {
        // Earlier ones win ties.
        const Ints bar = position > static_cast<int32_t>(j) ? below : mine;
        beaten += (Ints{} + found.keys[j]) > bar;
      }
    }
    int32_t rank[kLanes<Width>];
    beaten = -beaten;
    Store(beaten, rank);
    for (size_t lane = 0; lane < kLanes<Width>; ++lane) {
      ranked[rank[lane]] = found.indices[i + lane];
    }
  }
  for (size_t i = 0; i < k; ++i) {
    ids[i] = ranked[i];
  }
}

template <typename Width>
EXPERTMESH_INLINE bool SelectBody(const int32_t* keys, size_t count, size_t k, uint32_t* ids) {
  if (k > kMaxFastK) {
    return false;
  }
  Candidates found;
  const size_t n = Collect(keys, count, Threshold<Width>(keys, count, k), found);
  if (n > kMaxCandidates) {
    return false;
  }
  Rank<Width>(found, n, k, ids);
  return true;
}

template <typename Width>
EXPERTMESH_INLINE size_t CountBestBody(const int32_t* keys, size_t count, int32_t least,
                                       uint32_t last) {
  using Ints = typename Width::Ints;
  Ints best = {};
  for (size_t i = 0; i < count; i += kLanes<Width>) {  // Padding is smaller, and behind `last`.
    Ints mine;
    Load(keys + i, mine);
    const Ints index = Width::kIota + static_cast<int32_t>(i);
    best -= (mine > least) | ((mine == least) & (index <= static_cast<int32_t>(last)));
  }
  size_t sum = 0;
  for (size_t lane = 0; lane < kLanes<Width>; ++lane) {
    sum += static_cast<size_t>(best[lane]);
  }
  return sum;
}

// The two largest keys of every lane.
template <typename Vector>
struct TopTwo {
  Vector first;
  Vector second;
};

struct MergeTopTwo {
  template <typename Vector>
  static EXPERTMESH_INLINE void Apply(TopTwo<Vector>& a, const TopTwo<Vector>& b) {
    Vector loser = a.first;
    Smaller::Apply(loser, b.first);
    Larger::Apply(a.first, b.first);
    Larger::Apply(a.second, b.second);
    Larger::Apply(a.second, loser);
  }
};

template <size_t kShift, typename Vector>
EXPERTMESH_INLINE void FoldTopTwoLanes(TopTwo<Vector>& both) {
  if constexpr (kShift > 0) {
    constexpr std::make_index_sequence<sizeof(Vector) / sizeof(float)> kIndices;
    TopTwo<Vector> other;
    Rotate<kShift>(both.first, other.first, kIndices);
    Rotate<kShift>(both.second, other.second, kIndices);
    MergeTopTwo::Apply(both, other);
    FoldTopTwoLanes<kShift / 2>(both);
  }
}

template <typename Width>
EXPERTMESH_INLINE void TopTwoSumsBody(const float* row, size_t groups, size_t size, float* sums) {
  using Ints = typename Width::Ints;
  for (size_t group = 0; group < groups; ++group, row += size) {
    TopTwo<int32_t> best = {kPadKey, kPadKey};
    size_t i = 0;
    if (size >= kLanes<Width>) {
      TopTwo<Ints> lanes = {Ints{} + kPadKey, Ints{} + kPadKey};
      for (; i + kLanes<Width> <= size; i += kLanes<Width>) {
        typename Width::Floats value;
        TopTwo<Ints> other = {{}, Ints{} + kPadKey};
        Load(row + i, value);
        OrderKey<Width>(value, other.first);
        MergeTopTwo::Apply(lanes, other);
      }
      FoldTopTwoLanes<kLanes<Width> / 2>(lanes);
      best = {lanes.first[0], lanes.second[0]};
    }
    for (; i < size; ++i) {
      MergeTopTwo::Apply(best, TopTwo<int32_t>{OrderKeyOf(row[i]), kPadKey});
    }
    sums[group] = ValueOfKey(best.first) + ValueOfKey(best.second);
  }
}

// The wrappers of one instruction set.
#define EXPERTMESH_ROW_KERNELS(Set, Width, TARGET)                                                \
  TARGET void Softmax##Set(float* row, size_t count) { SoftmaxBody<Width>(row, count); }          \
  TARGET void Sigmoid##Set(float* row, size_t count) { SigmoidBody<Width>(row, count); }          \
  TARGET void OrderKeys##Set(const float* row, size_t count, int32_t* keys) {                     \
    OrderKeysBody<Width>(row, count, keys);                                                       \
  }                                                                                               \
  TARGET size_t CountBest##Set(const int32_t* keys, size_t count, int32_t least, uint32_t last) { \
    return CountBestBody<Width>(keys, count, least, last);                                        \
  }                                                                                               \
  TARGET void TopTwoSums##Set(const float* row, size_t groups, size_t size, float* sums) {        \
    TopTwoSumsBody<Width>(row, groups, size, sums);                                               \
  }

EXPERTMESH_ROW_KERNELS(Portable, Width16, )
bool SelectPortable(const int32_t* keys, size_t count, size_t k, uint32_t* ids) {
  return SelectBody<Width16>(keys, count, k, ids);
}

constexpr RowKernels kPortable = {"portable",        SoftmaxPortable, SigmoidPortable,
                                  OrderKeysPortable, SelectPortable,  CountBestPortable,
                                  TopTwoSumsPortable};

#if defined(__x86_64__)
#define EXPERTMESH_AVX2 __attribute__((target("avx2,popcnt")))
#define EXPERTMESH_AVX512 __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,popcnt")))

EXPERTMESH_ROW_KERNELS(Avx2, Width32, EXPERTMESH_AVX2)
EXPERTMESH_AVX2 bool SelectAvx2(const int32_t* keys, size_t count, size_t k, uint32_t* ids) {
  return SelectBody<Width32>(keys, count, k, ids);
}

EXPERTMESH_ROW_KERNELS(Avx512, Width64, EXPERTMESH_AVX512)
// As SelectBody, with the compress instruction in place of the loop that collects candidates.
EXPERTMESH_AVX512 bool SelectAvx512(const int32_t* keys, size_t count, size_t k, uint32_t* ids) {
  if (k > kMaxFastK) {
    return false;
  }
  const __m512i threshold = _mm512_set1_epi32(Threshold<Width64>(keys, count, k));
  __m512i index;
  std::memcpy(&index, &Width64::kIota, sizeof(index));
  Candidates found;
  size_t n = 0;
  for (size_t i = 0; i < count && n <= kMaxCandidates; i += kRowLanes) {
    const __m512i block = _mm512_loadu_si512(keys + i);
    const __mmask16 keep = _mm512_cmpge_epi32_mask(block, threshold);
    _mm512_storeu_si512(found.keys + n, _mm512_maskz_compress_epi32(keep, block));
    _mm512_storeu_si512(found.indices + n, _mm512_maskz_compress_epi32(keep, index));
    n += static_cast<size_t>(__builtin_popcount(keep));
    index = _mm512_add_epi32(index, _mm512_set1_epi32(kRowLanes));
  }
  if (n > kMaxCandidates) {
    return false;
  }
  Rank<Width64>(found, n, k, ids);
  return true;
}

constexpr RowKernels kAvx2 = {"avx2",     SoftmaxAvx2,   SigmoidAvx2,   OrderKeysAvx2,
                              SelectAvx2, CountBestAvx2, TopTwoSumsAvx2};
constexpr RowKernels kAvx512 = {"avx512",     SoftmaxAvx512,   SigmoidAvx512,   OrderKeysAvx512,
                                SelectAvx512, CountBestAvx512, TopTwoSumsAvx512};
#endif

}  // namespace

std::vector<const RowKernels*> AllRowKernelsForTest() {
  std::vector<const RowKernels*> all = {&kPortable};
#if defined(__x86_64__)
  if (CpuHasAvx2()) {
    all.push_back(&kAvx2);
  }
  if (CpuHasAvx512()) {
    all.push_back(&kAvx512);
  }
#endif
  return all;
}

const RowKernels& BestRowKernels() {
  static const RowKernels& best = *AllRowKernelsForTest().back();
  return best;
}

}  // namespace expertmesh::gate
