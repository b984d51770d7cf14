#include "client/cpp/command/top_report.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cpp/command/balance_report.h"
#include "client/cpp/command/mesh.h"
#include "client/cpp/command/numbers.h"
#include "client/cpp/command/text_columns.h"
#include "common/base/peer_text.h"

namespace expertmesh::command {
namespace {

using Rows = std::vector<std::vector<std::string>>;

// In a frame without an end.
constexpr size_t kExperts = 10;
constexpr size_t kLeastLines = 12;

std::string Whole(const std::optional<double>& number) {
  return number ? WithThousands(static_cast<uint64_t>(std::llround(*number))) : "-";
}

std::string Two(const std::optional<double>& number) {
  return number ? absl::StrFormat("%.2f", *number) : "-";
}

std::string Micros(const std::optional<absl::Duration>& time) {
  return time ? absl::StrFormat("%.1f", absl::ToDoubleMicroseconds(*time)) : "-";
}

std::string Clean(const std::string& text) { return PeerText(text, 200); }

// "node (5 of 12)" where not all are shown.
std::string Heading(const char* name, size_t shown, size_t all) {
  return shown < all ? absl::StrCat(name, " (", shown, " of ", all, ")") : name;
}

std::vector<std::string> HeadLines(const std::string& router, const TopReading& reading,
                                   const TopFigures& figures) {
  const client::Topology& topology = reading.topology;
  std::vector<std::string> lines;
  lines.push_back(absl::StrCat("expertmesh top  ", router, "  ",
                               absl::FormatTime("%H:%M:%S UTC", reading.time, absl::UTCTimeZone()),
                               "  epoch ", topology.epoch, "  ",
                               topology.ready ? "ready" : "NOT READY"));
  uint64_t batches = 0;
  uint64_t rows = 0;
  for (const client::NodeInfo& node : topology.nodes) {
    batches += node.batches_in_flight;
    rows += node.rows_in_flight;
  }
  const std::string flight =
      absl::StrCat("in flight ", batches, " batches, ", WithThousands(rows), " rows");
  lines.push_back(figures.interval
                      ? absl::StrCat("tokens/s ", Whole(figures.tokens_per_second), " (all layers ",
                                     Whole(figures.layer_tokens_per_second), ")  ", flight)
                      : absl::StrCat("rates come with the next frame  ", flight));
  if (!topology.missing.empty()) {
    lines.push_back(absl::StrCat("MISSING ", DescribeMissing(topology.missing)));
  }
  if (!topology.lookup_error.empty()) {
    lines.push_back(absl::StrCat("nodes cannot be looked up: ", Clean(topology.lookup_error)));
  }
  if (topology.balance.role != client::BalanceRole::kUnknown && !topology.balance.alive) {
    lines.push_back(absl::StrCat("BALANCING NOT ALIVE: ", Clean(topology.balance.reason)));
  }
  return lines;
}

std::string NameOf(const client::NodeInfo& node) {
  return Clean(node.node_id.empty() ? node.address : node.node_id);
}

std::vector<std::string> NodeLines(const TopFigures& figures, size_t shown, size_t columns) {
  shown = std::min(shown, figures.nodes.size());
  Rows rows = {{Heading("node", shown, figures.nodes.size()), "link", "batches", "rows",
                "assigned/s", "us each", "busy", "link us"}};
  for (size_t i = 0; i < shown; ++i) {
    const NodeFigures& figure = figures.nodes[i];
    const client::NodeInfo& node = figure.node;
    rows.push_back({NameOf(node), LinkName(node.link), absl::StrCat(node.batches_in_flight),
                    WithThousands(node.rows_in_flight), Whole(figure.assignments_per_second),
                    Micros(figure.compute_each), Two(figure.busy),
                    node.link_time_per_assignment > absl::ZeroDuration()
                        ? Micros(node.link_time_per_assignment)
                        : "-"});
  }
  std::vector<std::string> lines = TableLines(rows, columns);
  // Why a node is not up takes the place of its rates: it has none, or they say little.
  for (size_t i = 0; i < shown; ++i) {
    const client::NodeInfo& node = figures.nodes[i].node;
    if (node.link != client::Link::kUp && !node.reason.empty()) {
      const size_t name = std::min<size_t>(ColumnsOf(NameOf(node)), columns / 3);
      lines[i + 1] = FitColumns(absl::StrCat(FitColumns(NameOf(node), name), "  ",
                                             LinkName(node.link), "  ", Clean(node.reason)),
                                columns);
    }
  }
  return lines;
}

std::vector<std::string> LayerLines(const TopFigures& figures, size_t shown, size_t columns) {
  shown = std::min(shown, figures.layers.size());
  Rows rows = {
      {Heading("layer", shown, figures.layers.size()), "tokens/s", "MaxVio", "changed", "busy"}};
  for (size_t i = 0; i < shown; ++i) {
    const LayerFigures& layer = figures.layers[i];
    rows.push_back({absl::StrCat(layer.layer), Whole(layer.tokens_per_second),
                    Two(layer.max_violation),
                    DescribeChanged(layer.changed_tokens, layer.compared_tokens), Two(layer.busy)});
  }
  return TableLines(rows, columns);
}

std::vector<std::string> ExpertLines(const TopFigures& figures, size_t shown, size_t columns) {
  shown = std::min(shown, figures.experts.size());
  const auto seconds = absl::ToInt64Seconds(figures.window);
  Rows rows = {{absl::StrCat("hottest in ", seconds, " s"), "expert", "x even"}};
  for (size_t i = 0; i < shown; ++i) {
    const ExpertFigures& expert = figures.experts[i];
    rows.push_back(
        {absl::StrCat("layer ", expert.layer), absl::StrCat(expert.expert), Two(expert.over_even)});
  }
  return TableLines(rows, columns);
}

// "12 sampled, 8 slow"
std::string KeptText(const RecentStages& stages) {
  return absl::StrJoin(stages.kept, ", ", [](std::string* out, const auto& entry) {
    absl::StrAppend(out, entry.second, " ", Clean(entry.first));
  });
}

std::vector<std::string> StageLines(const RecentStages& stages, const TopFigures& figures,
                                    size_t columns) {
  if (figures.stages.empty()) {
    return {FitColumns(
        stages.status.ok()
            ? "no stage times: no trace was kept yet"
            : absl::StrCat("no stage times: ", Clean(std::string(stages.status.message()))),
        columns)};
  }
  std::vector<std::string> head = {"ms"};
  std::vector<std::string> median = {"median"};
  std::vector<std::string> p90 = {"90 %"};
  std::vector<std::string> longest = {"longest"};
  for (const StageFigures& stage : figures.stages) {
    const auto ms = [](absl::Duration time) {
      return absl::StrFormat("%.2f", absl::ToDoubleMilliseconds(time));
    };
    head.push_back(stage.name);
    median.push_back(ms(stage.median));
    p90.push_back(ms(stage.p90));
    longest.push_back(ms(stage.longest));
  }
  std::vector<std::string> lines = TableLines({head, median, p90, longest}, columns);
  lines[0] = FitColumns(absl::StrCat(lines[0], "   of ", stages.requests.size(), " recent traces:"),
                        columns);
  lines[1] = FitColumns(absl::StrCat(lines[1], "   ", KeptText(stages)), columns);
  return lines;
}

void Append(const std::vector<std::string>& lines, bool blank, std::vector<std::string>* frame) {
  if (blank) {
    frame->emplace_back();
  }
  frame->insert(frame->end(), lines.begin(), lines.end());
}

}  // namespace

std::vector<std::string> DrawTop(const std::string& router, const TopReading& reading,
                                 const TopFigures& figures, const FrameSize& size) {
  std::vector<std::string> frame;
  for (const std::string& line : HeadLines(router, reading, figures)) {
    frame.push_back(FitColumns(line, size.columns));
  }
  const std::vector<std::string> stages = StageLines(reading.stages, figures, size.columns);
  size_t nodes = figures.nodes.size();
  size_t layers = figures.layers.size();
  size_t experts = kExperts;
  bool blank = true;
  if (size.lines > 0) {
    const size_t lines = std::max(size.lines, kLeastLines);
    // Two headings; and lines between tables, where there is room for them.
    const size_t taken = frame.size() + stages.size() + 2;
    blank = lines >= taken + 3 + 8;
    const size_t left = lines - std::min(lines, taken + (blank ? 3 : 0));
    const size_t below = std::max(layers, std::min(experts, figures.experts.size()));
    nodes = std::min(nodes, std::max((left + 1) / 2, left - std::min(left, below)));
    layers = std::min(layers, left - nodes);
    experts = left - nodes;
  }
  Append(NodeLines(figures, nodes, size.columns), blank, &frame);
  const std::vector<std::string> by_layer = LayerLines(figures, layers, size.columns);
  const std::vector<std::string> by_expert = ExpertLines(figures, experts, size.columns);
  Append(Beside(by_layer, by_expert, size.columns), blank, &frame);
  Append(stages, blank, &frame);
  return frame;
}

std::vector<std::string> DrawAway(const std::string& router, const absl::Status& why,
                                  absl::Time now, absl::Time last, const FrameSize& size) {
  const auto clock = [](absl::Time time) {
    return absl::FormatTime("%H:%M:%S UTC", time, absl::UTCTimeZone());
  };
  return {FitColumns(absl::StrCat("expertmesh top  ", router, "  ", clock(now)), size.columns),
          FitColumns(absl::StrCat(
                         "NO ANSWER ",
                         last == absl::InfinitePast() ? "yet" : absl::StrCat("since ", clock(last)),
                         "; trying on: ", Clean(std::string(why.message()))),
                     size.columns)};
}

}  // namespace expertmesh::command
