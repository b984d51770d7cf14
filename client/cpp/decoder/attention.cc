#include "client/cpp/decoder/attention.h"

#include <algorithm>

namespace expertmesh::decoder {

std::vector<AttentionPiece> CutIntoPieces(const AttentionBatch& batch, size_t most) {
  std::vector<AttentionPiece> pieces;
  for (const AttentionSegment& segment : batch.segments) {
    for (size_t first = 0; first < segment.count; first += most) {
      pieces.push_back({&segment, first, std::min(most, segment.count - first)});
    }
  }
  return pieces;
}

size_t AttendedPairs(const AttentionBatch& batch) {
  size_t pairs = 0;
  for (const AttentionSegment& segment : batch.segments) {
    pairs += segment.count * (segment.cache->tokens() + segment.count);
  }
  return pairs;
}

}  // namespace expertmesh::decoder
