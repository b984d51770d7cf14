// Inside of otlp_exporter: spans as SpanWriter writes them, in pieces that fit into a request.
#ifndef EXPERTMESH_COMMON_OTLP_SPAN_CUT_H_
#define EXPERTMESH_COMMON_OTLP_SPAN_CUT_H_

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"

namespace expertmesh::otlp {

// Spans that no piece has.
struct LeftOut {
  uint32_t too_large = 0;  // Each alone is more than a piece may have.
  bool malformed = false;  // What follows the last piece is no span.
};

// Calls `piece` with the parts of `spans`, in order, each as large as may be: at most `most_spans`
// (which is not 0) of together at most `most_bytes`. Looks at where spans begin and end, and not
// into them.
LeftOut CutSpans(absl::string_view spans, uint64_t most_spans, uint64_t most_bytes,
                 absl::FunctionRef<void(absl::string_view bytes, uint32_t count)> piece);

}  // namespace expertmesh::otlp

#endif  // EXPERTMESH_COMMON_OTLP_SPAN_CUT_H_
