#include "client/cpp/command/trace_report.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cpp/command/statistics.h"

namespace expertmesh::command {
namespace {

using internal::otlp::Span;

constexpr int kBarWidth = 40;
// Attributes that lines show, in this order, and how they call them.
constexpr std::pair<const char*, const char*> kShown[] = {
    {"expertmesh.keep", "kept"},
    {"expertmesh.layer", "layer"},
    {"expertmesh.tokens", "tokens"},
    {"expertmesh.rows", "rows"},
    {"expertmesh.batch.requests", "requests"},
    {"expertmesh.batch.tokens", "batch tokens"},
    {"expertmesh.queue_us", "queue us"},
    {"expertmesh.route_us", "route us"},
    {"expertmesh.combine_us", "combine us"},
    {"expertmesh.node", "node"},
    {"expertmesh.attempt", "attempt"},
    {"expertmesh.node.merged_batches", "merged batches"},
};

struct Entry {
  const Span* span = nullptr;
  std::string process;
};

std::string TextOf(const internal::otlp::AnyValue& value) {
  if (value.has_string_value()) {
    return value.string_value();
  }
  return value.has_bool_value() ? (value.bool_value() ? "yes" : "no")
                                : absl::StrCat(value.int_value());
}

template <typename Attributes>
std::map<std::string, std::string> ToMap(const Attributes& attributes) {
  std::map<std::string, std::string> map;
  for (const internal::otlp::KeyValue& attribute : attributes) {
    map[attribute.key()] = TextOf(attribute.value());
  }
  return map;
}

std::string NotesOf(const Span& span) {
  const std::map<std::string, std::string> attributes = ToMap(span.attributes());
  std::vector<std::string> notes;
  if (const auto error = attributes.find("error.type"); error != attributes.end()) {
    notes.push_back(absl::StrCat(error->second, span.status().message().empty() ? "" : ": ",
                                 span.status().message()));
  }
  for (const auto& [key, name] : kShown) {
    const auto found = attributes.find(key);
    // The first attempt is nothing special.
    if (found != attributes.end() && !(found->second == "1" && std::string(name) == "attempt")) {
      notes.push_back(absl::StrCat(name, " ", found->second));
    }
  }
  return absl::StrJoin(notes, ", ");
}

// Draws the tree of a trace.
class Waterfall {
 public:
  explicit Waterfall(const internal::otlp::TracesData& data) {
    for (const internal::otlp::ResourceSpans& process : data.resource_spans()) {
      const std::map<std::string, std::string> resource = ToMap(process.resource().attributes());
      const auto service = resource.find("service.name");
      for (const internal::otlp::ScopeSpans& scope : process.scope_spans()) {
        for (const Span& span : scope.spans()) {
          entries_.push_back({&span, service == resource.end() ? "" : service->second});
        }
      }
    }
    std::stable_sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
      return a.span->start_time_unix_nano() < b.span->start_time_unix_nano();
    });
    std::set<std::string> ids;
    for (const Entry& entry : entries_) {
      ids.insert(entry.span->span_id());
      first_ = std::min(first_, entry.span->start_time_unix_nano());
      last_ = std::max(last_, entry.span->end_time_unix_nano());
    }
    for (const Entry& entry : entries_) {
      const std::string& parent = entry.span->parent_span_id();
      children_[ids.contains(parent) ? parent : ""].push_back(&entry);
    }
  }

  std::string Draw() {
    if (entries_.empty()) {
      return "";
    }
    AddChildren("", 0);
    size_t width = 0;
    for (const Line& line : lines_) {
      width = std::max(width, line.name.size());
    }
    std::string text = absl::StrFormat("trace %s: %u spans, %.3f ms\n       ms   long ms\n",
                                       absl::BytesToHexString(entries_[0].span->trace_id()),
                                       static_cast<unsigned>(entries_.size()),
                                       static_cast<double>(last_ - first_) / 1e6);
    for (const Line& line : lines_) {
      const std::string written =
          absl::StrFormat("%9.3f %9s |%s| %-*s  %s", line.start / 1e6, line.length, line.bar,
                          static_cast<int>(width), line.name, line.notes);
      absl::StrAppend(&text, absl::StripTrailingAsciiWhitespace(written), "\n");
    }
    return text + Links();
  }

 private:
  struct Line {
    double start = 0;  // Nanoseconds from the first.
    std::string length;
    std::string bar;
    std::string name;
    std::string notes;
  };

  void AddChildren(const std::string& parent, size_t depth) {
    const auto found = children_.find(parent);
    if (found == children_.end()) {
      return;
    }
    for (const Entry* entry : found->second) {
      const Span& span = *entry->span;
      const double start = static_cast<double>(span.start_time_unix_nano() - first_);
      const double length =
          static_cast<double>(span.end_time_unix_nano() - span.start_time_unix_nano());
      const std::string notes = NotesOf(span);
      lines_.push_back({start, absl::StrFormat("%.3f", length / 1e6), Bar(start, length),
                        absl::StrCat(std::string(2 * depth, ' '), span.name()),
                        absl::StrCat(entry->process, notes.empty() ? "" : ": ", notes)});
      for (const Span::Event& event : span.events()) {
        const double when = static_cast<double>(event.time_unix_nano() - first_);
        lines_.push_back(
            {when, "", Bar(when, 0), absl::StrCat(std::string(2 * depth + 2, ' '), event.name()),
             absl::StrJoin(ToMap(event.attributes()), ", ", absl::PairFormatter(" "))});
      }
      AddChildren(span.span_id(), depth + 1);
    }
  }

  // From `start` on, in nanoseconds from the first; at least one mark.
  std::string Bar(double start, double length) const {
    const double all = std::max(1.0, static_cast<double>(last_ - first_));
    const int begin = std::min(kBarWidth - 1, static_cast<int>(start / all * kBarWidth));
    const int end = std::min(kBarWidth, static_cast<int>((start + length) / all * kBarWidth + 0.5));
    std::string bar;
    for (int i = 0; i < kBarWidth; ++i) {
      absl::StrAppend(&bar, i == begin || (i > begin && i < end) ? (length > 0 ? "█" : "·") : " ");
    }
    return bar;
  }

  std::string Links() const {
    std::set<std::string> linked;
    uint32_t left_out = 0;
    for (const Entry& entry : entries_) {
      for (const Span::Link& link : entry.span->links()) {
        if (link.trace_id() != entry.span->trace_id()) {
          linked.insert(absl::BytesToHexString(link.trace_id()));
        }
      }
      left_out += entry.span->dropped_links_count();
    }
    std::string text;
    for (const std::string& trace : linked) {
      absl::StrAppend(&text, "linked: expertmesh trace ", trace, "\n");
    }
    if (left_out > 0) {
      absl::StrAppend(&text, left_out, " more links are left out\n");
    }
    return text;
  }

  std::vector<Entry> entries_;
  // By id of the parent; "" where that is not here.
  std::map<std::string, std::vector<const Entry*>> children_;
  uint64_t first_ = ~uint64_t{0};
  uint64_t last_ = 0;
  std::vector<Line> lines_;
};

}  // namespace

std::string DescribeTrace(const internal::otlp::TracesData& data) { return Waterfall(data).Draw(); }

std::string DescribeTraces(absl::Span<const client::TraceSummary> traces) {
  std::vector<std::vector<std::string>> table = {
      {"trace", "began (UTC)", "long ms", "layer", "tokens", "answer", "kept", "spans", "name"}};
  for (const client::TraceSummary& trace : traces) {
    table.push_back(
        {trace.trace_id, absl::FormatTime("%H:%M:%E3S", trace.start, absl::UTCTimeZone()),
         absl::StrFormat("%.3f", absl::ToDoubleMilliseconds(trace.duration)),
         absl::StrCat(trace.layer), absl::StrCat(trace.tokens),
         absl::StatusCodeToString(trace.code), trace.kept, absl::StrCat(trace.spans), trace.name});
  }
  return FormatTable(table);
}

}  // namespace expertmesh::command
