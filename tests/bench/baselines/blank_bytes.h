// Messages that are a header and as many bytes as it takes.
#ifndef EXPERTMESH_TESTS_BENCH_BASELINES_BLANK_BYTES_H_
#define EXPERTMESH_TESTS_BENCH_BASELINES_BLANK_BYTES_H_

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "common/base/check.h"
#include "common/wire/frame.h"

namespace expertmesh::bench {

// Large enough for any message of the benchmark.
inline const std::shared_ptr<const std::vector<char>>& BlankBytes() {
  static const auto* const bytes = new std::shared_ptr<const std::vector<char>>(
      std::make_shared<const std::vector<char>>(size_t{64} << 20));
  return *bytes;
}

// `header` and blank bytes, `size` in all (or the header, if that is larger). Copies the header
// alone.
template <typename Header>
Frame BlankFrame(const Header& header, size_t size) {
  static_assert(std::is_trivially_copyable_v<Header>);
  Frame frame(std::string(reinterpret_cast<const char*>(&header), sizeof(header)));
  const size_t rest = std::max(size, sizeof(header)) - sizeof(header);
  EXPERTMESH_CHECK(rest <= BlankBytes()->size());
  frame.Append(Slice(BlankBytes()->data(), rest, BlankBytes()));
  return frame;
}

// The header at the start of a frame; zeros when the frame is too short.
template <typename Header>
Header ReadHeader(const Frame& frame) {
  static_assert(std::is_trivially_copyable_v<Header>);
  Header header;
  if (frame.size() >= sizeof(header)) {
    frame.CopyTo(0, sizeof(header), &header);
  }
  return header;
}

}  // namespace expertmesh::bench

#endif  // EXPERTMESH_TESTS_BENCH_BASELINES_BLANK_BYTES_H_
