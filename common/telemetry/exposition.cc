#include "common/telemetry/exposition.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/utf8.h"
#include "common/trace/trace_context.h"

namespace expertmesh::telemetry {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

std::string Number(double value) {
  if (std::isnan(value)) {
    return "NaN";
  }
  if (std::isinf(value)) {
    return value > 0 ? "+Inf" : "-Inf";
  }
  // The fewest digits that say it; not to_chars, which writes 1e-04 for what all others call
  // 0.0001.
  for (const int digits : {15, 16}) {
    std::string text = absl::StrFormat("%.*g", digits, value);
    double read = 0;
    if (absl::SimpleAtod(text, &read) && read == value) {
      return text;
    }
  }
  return absl::StrFormat("%.17g", value);
}

// OpenMetrics has bounds always be floats to see.
std::string Bound(double value, Exposition exposition) {
  std::string text = Number(value);
  if (exposition == Exposition::kOpenMetrics && std::isfinite(value) &&
      text.find_first_of(".e") == std::string::npos) {
    text += ".0";
  }
  return text;
}

std::string Escaped(absl::string_view text, bool quotes) {
  std::string out;
  for (const char c : ValidUtf8(text)) {
    if (c == '\\') {
      out += "\\\\";
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '"' && quotes) {
      out += "\\\"";
    } else {
      out += c;
    }
  }
  return out;
}

const char* TypeName(MetricType type) {
  switch (type) {
    case MetricType::Counter:
      return "counter";
    case MetricType::Gauge:
      return "gauge";
    case MetricType::Summary:
      return "summary";
    case MetricType::Histogram:
      return "histogram";
    default:
      return nullptr;
  }
}

// "seconds" of "..._duration_seconds"; empty when the name tells none.
absl::string_view UnitOf(absl::string_view name) {
  for (const absl::string_view unit : {"seconds", "bytes"}) {
    if (absl::EndsWith(name, absl::StrCat("_", unit))) {
      return unit;
    }
  }
  return "";
}

// Writes one family after the other.
class Writer {
 public:
  Writer(Exposition exposition, const std::vector<const Exemplars*>& exemplars)
      : exposition_(exposition), exemplars_(exemplars) {}

  // `same`: all families of one name.
  void Write(const std::vector<const MetricFamily*>& same) {
    const MetricFamily& first = *same.front();
    WriteHead(first);
    std::set<std::string> seen;
    for (const MetricFamily* const family : same) {
      if (family->type != first.type) {
        continue;
      }
      for (const ClientMetric& metric : family->metric) {
        const std::string labels = Labels(metric.label);
        if (seen.insert(labels).second) {
          WriteSeries(first, labels, metric);
        }
      }
    }
  }

  std::string Take() {
    if (exposition_ == Exposition::kOpenMetrics) {
      text_ += "# EOF\n";
    }
    return std::move(text_);
  }

 private:
  bool open_metrics() const { return exposition_ == Exposition::kOpenMetrics; }

  void WriteHead(const MetricFamily& family) {
    absl::string_view name = family.name;
    if (open_metrics() && family.type == MetricType::Counter) {
      absl::ConsumeSuffix(&name, "_total");
    }
    const char* const type = TypeName(family.type);
    const std::string help = Escaped(family.help, /*quotes=*/open_metrics());
    const absl::string_view unit = open_metrics() ? UnitOf(name) : "";
    absl::StrAppend(&text_, "# HELP ", name, " ", help, "\n");
    absl::StrAppend(&text_, "# TYPE ", name, " ",
                    type != nullptr ? type : (open_metrics() ? "unknown" : "untyped"), "\n");
    if (!unit.empty()) {
      absl::StrAppend(&text_, "# UNIT ", name, " ", unit, "\n");
    }
  }

  // name="value",name="value"; in order of names, so that the same are the same.
  static std::string Labels(std::vector<ClientMetric::Label> labels) {
    std::sort(labels.begin(), labels.end());
    std::string text;
    for (const ClientMetric::Label& label : labels) {
      absl::StrAppend(&text, text.empty() ? "" : ",", label.name, "=\"",
                      Escaped(label.value, /*quotes=*/true), "\"");
    }
    return text;
  }

  // The exemplars of a series, by bucket.
  std::vector<std::optional<Exemplar>> ExemplarsOf(const std::string& name,
                                                   const ClientMetric& metric,
                                                   size_t buckets) const {
    if (open_metrics() && !exemplars_.empty()) {
      prometheus::Labels labels;
      for (const ClientMetric::Label& label : metric.label) {
        labels[label.name] = label.value;
      }
      for (const Exemplars* const each : exemplars_) {
        std::vector<std::optional<Exemplar>> found = each->Find(name, labels, buckets);
        if (!found.empty()) {
          return found;
        }
      }
    }
    return std::vector<std::optional<Exemplar>>(buckets);
  }

  void WriteSeries(const MetricFamily& family, const std::string& labels,
                   const ClientMetric& metric) {
    const std::string& name = family.name;
    switch (family.type) {
      case MetricType::Counter:
        WriteSample(
            open_metrics() ? absl::StrCat(absl::StripSuffix(name, "_total"), "_total") : name,
            labels, "", Number(metric.counter.value), ExemplarsOf(name, metric, 1).front());
        break;
      case MetricType::Gauge:
        WriteSample(name, labels, "", Number(metric.gauge.value));
        break;
      case MetricType::Summary:
        for (const ClientMetric::Quantile& each : metric.summary.quantile) {
          WriteSample(name, labels, absl::StrCat("quantile=\"", Number(each.quantile), "\""),
                      Number(each.value));
        }
        WriteSumAndCount(name, labels, metric.summary.sample_sum, metric.summary.sample_count);
        break;
      case MetricType::Histogram:
        WriteHistogram(name, labels, metric);
        break;
      default:
        WriteSample(name, labels, "", Number(metric.untyped.value));
    }
  }

  void WriteHistogram(const std::string& name, const std::string& labels,
                      const ClientMetric& metric) {
    const ClientMetric::Histogram& histogram = metric.histogram;
    const std::vector<std::optional<Exemplar>> exemplars =
        ExemplarsOf(name, metric, histogram.bucket.size());
    const std::string bucket_name = absl::StrCat(name, "_bucket");
    bool ends = false;
    for (size_t i = 0; i < histogram.bucket.size(); ++i) {
      const ClientMetric::Bucket& bucket = histogram.bucket[i];
      ends = std::isinf(bucket.upper_bound);
      WriteSample(bucket_name, labels,
                  absl::StrCat("le=\"", Bound(bucket.upper_bound, exposition_), "\""),
                  absl::StrCat(bucket.cumulative_count), exemplars[i]);
    }
    if (!ends) {
      WriteSample(bucket_name, labels, "le=\"+Inf\"", absl::StrCat(histogram.sample_count));
    }
    WriteSumAndCount(name, labels, histogram.sample_sum, histogram.sample_count);
  }

  void WriteSumAndCount(const std::string& name, const std::string& labels, double sum,
                        uint64_t count) {
    WriteSample(absl::StrCat(name, "_sum"), labels, "", Number(sum));
    WriteSample(absl::StrCat(name, "_count"), labels, "", absl::StrCat(count));
  }

  void WriteSample(const std::string& name, const std::string& labels, const std::string& more,
                   const std::string& value,
                   const std::optional<Exemplar>& exemplar = std::nullopt) {
    text_ += name;
    if (!labels.empty() || !more.empty()) {
      absl::StrAppend(&text_, "{", labels, labels.empty() || more.empty() ? "" : ",", more, "}");
    }
    absl::StrAppend(&text_, " ", value);
    if (exemplar) {
      absl::StrAppend(
          &text_, " # {trace_id=\"", trace::ToHex(exemplar->context.trace_id), "\",span_id=\"",
          trace::ToHex(exemplar->context.span_id), "\"} ", Number(exemplar->value), " ",
          absl::StrFormat("%.3f", absl::ToDoubleSeconds(exemplar->time - absl::UnixEpoch())));
    }
    text_ += "\n";
  }

  const Exposition exposition_;
  const std::vector<const Exemplars*>& exemplars_;
  std::string text_;
};

// How much a client likes the type of one element of its Accept header, 0 to 1; no value when it is
// another type.
struct Liking {
  std::string type;
  std::string version;
  double quality = 1;
};

Liking ReadLiking(absl::string_view element) {
  Liking liking;
  bool first = true;
  for (absl::string_view part : absl::StrSplit(element, ';')) {
    part = absl::StripAsciiWhitespace(part);
    if (std::exchange(first, false)) {
      liking.type = absl::AsciiStrToLower(part);
    } else if (absl::ConsumePrefix(&part, "q=")) {
      if (!absl::SimpleAtod(part, &liking.quality) || std::isnan(liking.quality)) {
        liking.quality = 0;
      }
    } else if (absl::ConsumePrefix(&part, "version=")) {
      liking.version = std::string(absl::StripSuffix(absl::StripPrefix(part, "\""), "\""));
    }
  }
  return liking;
}

}  // namespace

Exposition ChooseExposition(absl::string_view accept) {
  double open_metrics = 0;
  double text = 0;
  for (const absl::string_view element : absl::StrSplit(accept, ',')) {
    const Liking liking = ReadLiking(element);
    if (liking.type == "application/openmetrics-text" &&
        (liking.version.empty() || liking.version == "1.0.0")) {
      open_metrics = std::max(open_metrics, liking.quality);
    } else if (liking.type == "text/plain" &&
               (liking.version.empty() || liking.version == "0.0.4")) {
      text = std::max(text, liking.quality);
    }
  }
  return open_metrics > 0 && open_metrics >= text ? Exposition::kOpenMetrics : Exposition::kText;
}

const char* ContentType(Exposition exposition) {
  return exposition == Exposition::kOpenMetrics
             ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
             : "text/plain; version=0.0.4; charset=utf-8";
}

std::string Expose(const std::vector<MetricFamily>& families, Exposition exposition,
                   const std::vector<const Exemplars*>& exemplars) {
  std::vector<std::string> order;
  std::map<std::string, std::vector<const MetricFamily*>> by_name;
  for (const MetricFamily& family : families) {
    if (family.metric.empty()) {
      continue;
    }
    std::vector<const MetricFamily*>& same = by_name[family.name];
    if (same.empty()) {
      order.push_back(family.name);
    }
    same.push_back(&family);
  }
  Writer writer(exposition, exemplars);
  for (const std::string& name : order) {
    writer.Write(by_name[name]);
  }
  return writer.Take();
}

}  // namespace expertmesh::telemetry
