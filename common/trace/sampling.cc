#include "common/trace/sampling.h"

#include <algorithm>
#include <cmath>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace expertmesh::trace {
namespace {

// Never 0.
uint64_t RandomWord() {
  thread_local absl::InsecureBitGen generator;
  return absl::Uniform<uint64_t>(absl::IntervalClosed, generator, 1, ~uint64_t{0});
}

// As OpenTelemetry writes it: 14 hexadecimal digits without the zeros at the end.
std::string ThresholdText(uint64_t threshold) {
  const std::string digits = absl::StrCat(absl::Hex(threshold, absl::kZeroPad14));
  const size_t last = digits.find_last_not_of('0');
  return last == std::string::npos ? "0" : digits.substr(0, last + 1);
}

}  // namespace

TraceId NewTraceId() { return {RandomWord(), RandomWord()}; }

SpanId NewSpanId() { return RandomWord(); }

RatioSampler::RatioSampler(double ratio) {
  constexpr double kAll = 0x1p56;
  const double kept = std::clamp(ratio, 0.0, 1.0) * kAll;
  threshold_ = (uint64_t{1} << 56) - static_cast<uint64_t>(std::llround(kept));
  tracestate_ = absl::StrCat("ot=th:", ThresholdText(threshold_));
}

}  // namespace expertmesh::trace
