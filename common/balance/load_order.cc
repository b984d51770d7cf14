#include "common/balance/load_order.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>

namespace expertmesh::balance {
namespace {

constexpr int kDigitBits = 8;
constexpr int kDigits = 32 / kDigitBits;
constexpr size_t kValues = size_t{1} << kDigitBits;

size_t Digit(uint64_t key, int digit) { return (key >> (32 + (digit * kDigitBits))) % kValues; }

}  // namespace

// Radix sort, which keeps the order of what is alike: comparisons of random loads are
// mispredicted, which is most of what sorting a layer costs.
void LoadOrder::Sort(absl::Span<const double> loads) {
  const size_t count = loads.size();
  keys_.resize(count);
  sorted_.resize(count);
  experts_.resize(count);
  const double largest = *std::max_element(loads.begin(), loads.end());
  const double scale = largest > 0 ? largest : 1;
  std::array<std::array<uint32_t, kValues>, kDigits> ends = {};
  for (size_t expert = 0; expert < count; ++expert) {
    // Floats that are not negative are in the order of their bits.
    const auto bits = ~std::bit_cast<uint32_t>(static_cast<float>(loads[expert] / scale));
    keys_[expert] = (uint64_t{bits} << 32) | expert;
    for (int digit = 0; digit < kDigits; ++digit) {
      ++ends[digit][Digit(keys_[expert], digit)];
    }
  }
  for (int digit = 0; digit < kDigits; ++digit) {
    uint32_t begin = 0;
    for (uint32_t& end : ends[digit]) {
      begin += end;
      end = begin - end;
    }
    for (const uint64_t key : keys_) {
      sorted_[ends[digit][Digit(key, digit)]++] = key;
    }
    keys_.swap(sorted_);
  }
  for (size_t i = 0; i < count; ++i) {
    experts_[i] = static_cast<uint32_t>(keys_[i]);
  }
}

}  // namespace expertmesh::balance
