#include "common/wire/frame.h"

#include <algorithm>

namespace expertmesh {
namespace {

// Calls visit(slice, offset in slice, bytes) for each piece of the range.
template <typename Visit>
void ForEachPiece(const Frame& frame, size_t offset, size_t count, Visit visit) {
  EXPERTMESH_CHECK(offset <= frame.size() && count <= frame.size() - offset);
  for (const Slice& slice : frame.slices()) {
    if (count == 0) {
      return;
    }
    if (offset >= slice.size()) {
      offset -= slice.size();
      continue;
    }
    const size_t bytes = std::min(count, slice.size() - offset);
    visit(slice, offset, bytes);
    count -= bytes;
    offset = 0;
  }
}

}  // namespace

Frame Frame::Sub(size_t offset, size_t count) const {
  Frame result;
  AppendTo(offset, count, &result);
  return result;
}

void Frame::AppendTo(size_t offset, size_t count, Frame* target) const {
  ForEachPiece(*this, offset, count, [target](const Slice& slice, size_t at, size_t bytes) {
    target->Append(slice.Sub(at, bytes));
  });
}

void Frame::CopyTo(size_t offset, size_t count, void* target) const {
  uint8_t* out = static_cast<uint8_t*>(target);
  ForEachPiece(*this, offset, count, [&out](const Slice& slice, size_t at, size_t bytes) {
    std::memcpy(out, slice.data() + at, bytes);
    out += bytes;
  });
}

std::string Frame::Flatten() const {
  std::string bytes(size_, '\0');
  CopyTo(0, size_, bytes.data());
  return bytes;
}

}  // namespace expertmesh
