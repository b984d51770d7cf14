#include "common/checkpoint/random_tensor.h"

#include <array>
#include <cmath>
#include <cstddef>
#include <memory>

#include "common/base/check.h"

namespace expertmesh::checkpoint {
namespace {

constexpr size_t kQuantiles = 65536;

// Value below which a standard normal falls with probability p < 0.5: bisection on erfc. Slow and
// exact to the last bit of a float, which is what makes every machine produce the same table.
double LowerQuantile(double p) {
  double low = -6.0;
  double high = 0.0;
  for (int i = 0; i < 50; ++i) {
    const double middle = 0.5 * (low + high);
    if (0.5 * std::erfc(-middle * M_SQRT1_2) < p) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return 0.5 * (low + high);
}

const float* QuantileTable() {
  static const std::unique_ptr<std::array<float, kQuantiles>> table = [] {
    auto made = std::make_unique<std::array<float, kQuantiles>>();
    for (size_t i = 0; i < kQuantiles / 2; ++i) {
      const float value =
          static_cast<float>(LowerQuantile((static_cast<double>(i) + 0.5) / kQuantiles));
      (*made)[i] = value;
      (*made)[kQuantiles - 1 - i] = -value;
    }
    return made;
  }();
  return table->data();
}

// A bijection of 64-bit words that scatters neighbours (Stafford's variant 13 of the murmur
// finaliser).
uint64_t Mix(uint64_t word) {
  word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9u;
  word = (word ^ (word >> 27)) * 0x94d049bb133111ebu;
  return word ^ (word >> 31);
}

// FNV-1a.
uint64_t HashName(absl::string_view name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) {
    hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  }
  return hash;
}

// Four values from each word.
template <typename T, typename Encode>
void FillAs(uint64_t key, uint64_t begin, uint64_t count, float deviation, T* target,
            Encode encode) {
  constexpr uint64_t kGolden = 0x9e3779b97f4a7c15u;
  const float* const table = QuantileTable();
  uint64_t counter = begin / 4;
  uint64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    const uint64_t word = Mix(key + kGolden * ++counter);
    target[i] = encode(deviation * table[word & 0xffff]);
    target[i + 1] = encode(deviation * table[(word >> 16) & 0xffff]);
    target[i + 2] = encode(deviation * table[(word >> 32) & 0xffff]);
    target[i + 3] = encode(deviation * table[word >> 48]);
  }
  for (uint64_t word = Mix(key + kGolden * ++counter); i < count; ++i, word >>= 16) {
    target[i] = encode(deviation * table[word & 0xffff]);
  }
}

}  // namespace

NormalSequence::NormalSequence(uint64_t seed, absl::string_view name)
    : key_(Mix(Mix(seed + 1) ^ HashName(name))) {}

void NormalSequence::Fill(uint64_t begin, uint64_t count, float deviation, Dtype dtype,
                          void* target) const {
  EXPERTMESH_CHECK(begin % 4 == 0);
  switch (dtype) {
    case Dtype::kF32:
      return FillAs(key_, begin, count, deviation, static_cast<float*>(target),
                    [](float value) { return value; });
    case Dtype::kBF16:
      return FillAs(key_, begin, count, deviation, static_cast<uint16_t*>(target), &BF16FromFloat);
    case Dtype::kF16:
      return FillAs(key_, begin, count, deviation, static_cast<uint16_t*>(target), &F16FromFloat);
    default:
      EXPERTMESH_CHECK(IsActivationDtype(dtype));
  }
}

}  // namespace expertmesh::checkpoint
