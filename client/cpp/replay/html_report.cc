#include <functional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cpp/replay/report.h"
#include "client/cpp/replay/svg_chart.h"

namespace expertmesh::replay {
namespace {

constexpr const char kStyle[] = R"(
body { font: 15px/1.5 system-ui, sans-serif; max-width: 860px; margin: 2em auto; padding: 0 1em; color: #1d2329; background: #fff }
h1 { font-size: 1.6em } h2 { font-size: 1.2em; margin-top: 2.2em }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums }
th, td { padding: 3px 9px; text-align: right; border-bottom: 1px solid #dde2e7; white-space: nowrap }
td.text, th.text { text-align: left }
.scroll { overflow-x: auto } .short { color: #a8323f; font-weight: 600 }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif; fill: #3c4650 }
svg .grid { stroke: #e3e7ea }
.legend span { margin-right: 1.2em; white-space: nowrap } .legend i { display: inline-block; width: 11px; height: 11px; margin-right: 5px }
.muted { color: #69737d }
)";

struct Chart {
  const char* title;
  const char* explained;
  const char* unit;
  double low;
  std::function<double(const IntervalFigures&)> value;
  // Each value is added to those before it.
  bool adds_up = false;
};

const std::vector<Chart>& Charts() {
  static const auto* const charts = new std::vector<Chart>{
      {"Fullest node", "The fullest node of a layer over the mean of all nodes, mean over layers.",
       "fullest / mean", 1, [](const IntervalFigures& f) { return f.fullest; }},
      {"Fullest node, worst layer", "The same in the layer where it is worst.", "fullest / mean", 1,
       [](const IntervalFigures& f) { return f.fullest_worst; }},
      {"MaxVio of the interval",
       "How far the most loaded expert is above the mean, as a share of it; mean over layers.",
       "MaxVio", 0, [](const IntervalFigures& f) { return f.max_violation; }},
      {"MaxVio of a batch", "The same of the tokens of one batch.", "MaxVio", 0,
       [](const IntervalFigures& f) { return f.max_violation_batch; }},
      {"Quality budget used",
       "Tokens that the bias sends to other experts than the checkpoint alone, in the worst layer.",
       "% of tokens", 0, [](const IntervalFigures& f) { return 100 * f.changed_worst; }},
      {"Latency, p50", "Half of all batches of a layer are done within this time.", "us", 0,
       [](const IntervalFigures& f) { return f.p50_us; }},
      {"Latency, p99", "99 of 100 batches of a layer are done within this time.", "us", 0,
       [](const IntervalFigures& f) { return f.p99_us; }},
      {"Busiest node", "Time that the busiest node computes. Above 100 % it does not keep up.", "%",
       0, [](const IntervalFigures& f) { return 100 * f.busy; }},
      {"Moves", "Copies of experts that were loaded so far.", "copies", 0,
       [](const IntervalFigures& f) { return static_cast<double>(f.moves); }, true},
      {"Bytes", "Bytes that were loaded so far.", "GB", 0,
       [](const IntervalFigures& f) { return static_cast<double>(f.bytes) / 1e9; }, true},
      {"Lost assignments", "Assignments whose expert no node had.", "%", 0,
       [](const IntervalFigures& f) { return 100 * f.lost; }}};
  return *charts;
}

std::string DrawChart(const Chart& chart, const Report& report) {
  std::vector<double> times;
  std::vector<ChartLine> lines;
  bool any = false;
  for (const PolicyResult& policy : report.result.policies) {
    ChartLine line = {.name = policy.name, .values = {}};
    double sum = 0;
    times.clear();
    for (const IntervalFigures& figures : policy.intervals) {
      const double value = chart.value(figures);
      sum += value;
      times.push_back(figures.start_s);
      line.values.push_back(chart.adds_up ? sum : value);
      any = any || IsAbove(value, chart.low);
    }
    lines.push_back(std::move(line));
  }
  std::string html = absl::StrCat("<h2>", chart.title, "</h2><p class=\"muted\">", chart.explained);
  if (!any || times.empty()) {
    return absl::StrCat(html, " None in this run.</p>");
  }
  return absl::StrCat(html, "</p>", LineChart(times, lines, chart.unit, chart.low));
}

std::string Row(absl::string_view tag, const std::vector<std::string>& cells) {
  std::string html = "<tr>";
  for (size_t i = 0; i < cells.size(); ++i) {
    absl::StrAppend(&html, "<", tag, i == 0 ? " class=\"text\">" : ">", EscapeXml(cells[i]), "</",
                    tag, ">");
  }
  return absl::StrCat(html, "</tr>");
}

std::string Table(const Report& report) {
  std::string html = absl::StrCat(
      "<div class=\"scroll\"><table>",
      Row("th", {"policy", "fullest / mean", "worst layer", "lower bound", "MaxVio",
                 "MaxVio of a batch", "changed, worst layer", "p50 us", "p99 us", "busiest node",
                 "lost", "plans", "copies loaded", "GB loaded", "planning s"}));
  for (const PolicyResult& policy : report.result.policies) {
    const IntervalFigures sum = Summarise(policy);
    absl::StrAppend(
        &html,
        Row("td", {policy.name, absl::StrFormat("%.3f", sum.fullest),
                   absl::StrFormat("%.3f", sum.fullest_worst),
                   sum.lower_bound > 0 ? absl::StrFormat("%.3f", sum.lower_bound) : "",
                   absl::StrFormat("%.3f", sum.max_violation),
                   absl::StrFormat("%.3f", sum.max_violation_batch),
                   absl::StrFormat("%.2f %%", 100 * sum.changed_worst), ShortNumber(sum.p50_us),
                   ShortNumber(sum.p99_us), absl::StrFormat("%.1f %%", 100 * sum.busy),
                   absl::StrFormat("%.3f %%", 100 * sum.lost), absl::StrCat(policy.plans),
                   ShortNumber(static_cast<double>(sum.moves)),
                   ShortNumber(static_cast<double>(sum.bytes) / 1e9),
                   absl::StrFormat("%.2f", policy.planning_s)}));
  }
  return absl::StrCat(html, "</table></div>");
}

std::string Failures(const Report& report) {
  std::string html;
  for (const PolicyResult& policy : report.result.policies) {
    if (policy.failed_plans > 0) {
      absl::StrAppend(&html, "<p class=\"short\">", EscapeXml(policy.name), ": ",
                      policy.failed_plans, " plans could not be made; the last one because ",
                      EscapeXml(policy.failure), "</p>");
    }
  }
  return html;
}

}  // namespace

std::string ToHtml(const Report& report) {
  const ServiceTimes& times = report.mesh.times;
  std::string html = absl::StrCat(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta "
      "charset=\"utf-8\"/><title>Replay</title><style>",
      kStyle, "</style></head><body><h1>Replay</h1><p>", EscapeXml(report.load),
      "</p><p class=\"muted\">", report.mesh.nodes.size(), " nodes, ", report.layers,
      " layers, intervals of ", ShortNumber(report.interval_s), " s. A node of speed 1 takes ",
      ShortNumber(times.assignment_us), " us for an assignment, ", ShortNumber(times.expert_us),
      " us for an expert that a batch uses, ", ShortNumber(times.batch_us), " us for a batch and ",
      ShortNumber(times.row_us), " us for a row, on top of ", ShortNumber(times.hop_us),
      " us on the way and ", ShortNumber(times.token_us),
      " us for a token at the router. Queues are not simulated. Figures are means weighted with "
      "tokens, sums of "
      "what was loaded, and the worst of what is called so.</p>",
      Table(report), Failures(report));
  for (const Chart& chart : Charts()) {
    absl::StrAppend(&html, DrawChart(chart, report), "\n");
  }
  return absl::StrCat(html, "</body></html>\n");
}

}  // namespace expertmesh::replay
