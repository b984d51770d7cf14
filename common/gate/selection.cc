#include "common/gate/selection.h"

#include <algorithm>
#include <cmath>

#include "common/base/check.h"
#include "common/gate/row_kernels.h"

namespace expertmesh::gate {
namespace {

// For rows the vector kernel declines: large k, or many ties.
void SelectByNthElement(absl::Span<const int32_t> keys, std::vector<uint64_t>* order,
                        absl::Span<uint32_t> ids) {
  order->resize(keys.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    // Ascending order of these is: larger key first, lower index first among equals.
    const uint32_t worse = ~(static_cast<uint32_t>(keys[i]) ^ 0x80000000u);
    (*order)[i] = static_cast<uint64_t>(worse) << 32 | static_cast<uint32_t>(i);
  }
  const auto end = order->begin() + static_cast<ptrdiff_t>(ids.size());
  std::nth_element(order->begin(), end - 1, order->end());
  std::sort(order->begin(), end);
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<uint32_t>((*order)[i]);
  }
}

void OrderKeys(absl::Span<const float> values, std::vector<int32_t>* keys) {
  const size_t padded = PaddedRow(values.size());
  if (keys->size() < padded) {
    keys->resize(padded);
  }
  BestRowKernels().order_keys(values.data(), values.size(), keys->data());
}

void SelectLowestIndex(absl::Span<const float> values, SelectionScratch* scratch,
                       absl::Span<uint32_t> ids) {
  const RowKernels& kernels = BestRowKernels();
  OrderKeys(values, &scratch->keys);
  if (!kernels.select(scratch->keys.data(), values.size(), ids.size(), ids.data())) {
    SelectByNthElement(absl::MakeConstSpan(scratch->keys.data(), values.size()), &scratch->order,
                       ids);
  }
}

void SelectAsTorchCpu(absl::Span<const float> values, bool sorted, SelectionScratch* scratch,
                      absl::Span<uint32_t> ids) {
  auto& pairs = scratch->pairs;
  pairs.clear();
  for (size_t i = 0; i < values.size(); ++i) {
    pairs.emplace_back(values[i], static_cast<int64_t>(i));
  }
  const auto larger = [](const std::pair<float, int64_t>& x, const std::pair<float, int64_t>& y) {
    return (std::isnan(x.first) && !std::isnan(y.first)) || x.first > y.first;
  };
  const auto k = static_cast<ptrdiff_t>(ids.size());
  if (ids.size() * 64 <= values.size()) {
    std::partial_sort(pairs.begin(), pairs.begin() + k, pairs.end(), larger);
  } else {
    std::nth_element(pairs.begin(), pairs.begin() + k - 1, pairs.end(), larger);
    if (sorted) {
      std::sort(pairs.begin(), pairs.begin() + k - 1, larger);
    }
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<uint32_t>(pairs[i].second);
  }
}

}  // namespace

void SelectTopK(absl::Span<const float> values, TieOrder ties, bool sorted,
                SelectionScratch* scratch, absl::Span<uint32_t> ids) {
  EXPERTMESH_CHECK(!ids.empty() && ids.size() <= values.size());
  switch (ties) {
    case TieOrder::kLowestIndex:
      return SelectLowestIndex(values, scratch, ids);
    case TieOrder::kTorchCpu:
      return SelectAsTorchCpu(values, sorted, scratch, ids);
  }
}

bool IsTopK(absl::Span<const float> values, TieOrder ties, SelectionScratch* scratch,
            absl::Span<const uint32_t> ids) {
  EXPERTMESH_CHECK(!ids.empty() && ids.size() <= values.size());
  if (ties == TieOrder::kTorchCpu) {
    scratch->wanted.resize(ids.size());
    SelectAsTorchCpu(values, /*sorted=*/false, scratch, absl::MakeSpan(scratch->wanted));
    std::sort(scratch->wanted.begin(), scratch->wanted.end());
    scratch->chosen.assign(ids.begin(), ids.end());
    std::sort(scratch->chosen.begin(), scratch->chosen.end());
    return scratch->wanted == scratch->chosen;
  }
  OrderKeys(values, &scratch->keys);
  const std::vector<int32_t>& keys = scratch->keys;
  // The one of `ids` that SelectTopK would choose last.
  uint32_t last = ids[0];
  for (const uint32_t id : ids) {
    if (keys[id] < keys[last] || (keys[id] == keys[last] && id > last)) {
      last = id;
    }
  }
  // All of `ids` are at its place or before, and nothing else may be.
  return BestRowKernels().count_best(keys.data(), values.size(), keys[last], last) == ids.size();
}

}  // namespace expertmesh::gate
