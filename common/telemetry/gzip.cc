#include "common/telemetry/gzip.h"

#include <zlib.h>

#include <cstddef>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace expertmesh::telemetry {
namespace {

// The largest window, and the header and sum of gzip instead of zlib's own.
constexpr int kGzipWindow = MAX_WBITS + 16;
constexpr int kUsualMemory = 8;

// What "gzip;q=0.5" says of the coding that it names: 0 is "not this one".
double QualityOf(const std::vector<absl::string_view>& parts) {
  for (size_t i = 1; i < parts.size(); ++i) {
    const std::vector<absl::string_view> pair = absl::StrSplit(parts[i], absl::MaxSplits('=', 1));
    double quality = 0;
    if (absl::EqualsIgnoreCase(absl::StripAsciiWhitespace(pair[0]), "q")) {
      return pair.size() == 2 && absl::SimpleAtod(pair[1], &quality) ? quality : 0;
    }
  }
  return 1;
}

}  // namespace

bool AcceptsGzip(absl::string_view accept_encoding) {
  bool others = false;
  for (const absl::string_view coding : absl::StrSplit(accept_encoding, ',')) {
    const std::vector<absl::string_view> parts = absl::StrSplit(coding, ';');
    const absl::string_view name = absl::StripAsciiWhitespace(parts[0]);
    if (absl::EqualsIgnoreCase(name, "gzip") || absl::EqualsIgnoreCase(name, "x-gzip")) {
      return QualityOf(parts) > 0;
    }
    others = others || (name == "*" && QualityOf(parts) > 0);
  }
  return others;
}

std::optional<std::string> Gzip(absl::string_view text) {
  z_stream stream = {};
  // The fastest level has most of what there is to save: names of metrics that come again and
  // again.
  if (text.size() > std::numeric_limits<uInt>::max() ||
      deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, kGzipWindow, kUsualMemory,
                   Z_DEFAULT_STRATEGY) != Z_OK) {
    return std::nullopt;
  }
  std::string out(deflateBound(&stream, text.size()), '\0');
  // It only reads them.
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const int result = deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return result == Z_STREAM_END ? std::make_optional(std::move(out)) : std::nullopt;
}

}  // namespace expertmesh::telemetry
