#include "client/cpp/replay/svg_chart.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace expertmesh::replay {
namespace {

constexpr double kWidth = 760;
constexpr double kHeight = 290;
constexpr double kLeft = 70;
constexpr double kRight = 746;
constexpr double kTop = 24;
constexpr double kBottom = 250;
// No more than can be told apart.
constexpr size_t kMaxPoints = 400;
constexpr const char* kColours[] = {"#2f6fab", "#d2802c", "#3d8f5f", "#b3475a",
                                    "#7b62a8", "#7d6a55", "#7c8a97"};

std::string Text(double x, double y, absl::string_view text, absl::string_view anchor) {
  return absl::StrFormat("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>", x, y, anchor,
                         EscapeXml(text));
}

// Round steps, about four of them.
double Step(double range) {
  const double power = std::pow(10, std::floor(std::log10(range)));
  for (const double part : {1.0, 0.5, 0.2}) {
    if (range / (power * part) >= 3.5) {
      return power * part;
    }
  }
  return power * 0.1;
}

std::string Clock(double seconds) {
  const auto whole = static_cast<long long>(std::llround(seconds));
  return absl::StrFormat("%d:%02d:%02d", whole / 3600, whole / 60 % 60, whole % 60);
}

// Means of as many neighbours as it takes.
std::vector<double> Thinned(const std::vector<double>& values) {
  const size_t group = (values.size() + kMaxPoints - 1) / kMaxPoints;
  std::vector<double> means;
  for (size_t begin = 0; begin < values.size(); begin += group) {
    const size_t end = std::min(values.size(), begin + group);
    double sum = 0;
    for (size_t i = begin; i < end; ++i) {
      sum += values[i];
    }
    means.push_back(sum / static_cast<double>(end - begin));
  }
  return means;
}

// More than a step would make.
constexpr int kMostTicks = 20;

class Axes {
 public:
  Axes(const std::vector<double>& times, const std::vector<ChartLine>& lines, double low)
      : low_(low), first_(times.front()), last_(times.back()) {
    double high = low;
    for (const ChartLine& line : lines) {
      for (const double value : line.values) {
        high = std::max(high, value);
      }
    }
    high_ = IsAbove(high, low) ? low + (high - low) * 1.08 : low + 1;
  }

  double X(double time) const {
    return last_ > first_ ? kLeft + (time - first_) / (last_ - first_) * (kRight - kLeft)
                          : (kLeft + kRight) / 2;
  }
  double Y(double value) const {
    return kBottom - (std::max(value, low_) - low_) / (high_ - low_) * (kBottom - kTop);
  }

  std::string Draw(absl::string_view unit) const {
    std::string svg = Text(kLeft - 40, kTop - 12, unit, "start");
    const double step = Step(high_ - low_);
    const double first = std::ceil(low_ / step);
    // By number: a step may be too small to change a tick that it is added to.
    for (int i = 0; i <= kMostTicks && (first + i) * step <= high_; ++i) {
      const double tick = (first + i) * step;
      const double shown = std::fabs(tick) < step / 2 ? 0 : tick;
      absl::StrAppendFormat(
          &svg, "<line class=\"grid\" x1=\"%.0f\" x2=\"%.0f\" y1=\"%.1f\" y2=\"%.1f\"/>", kLeft,
          kRight, Y(tick), Y(tick));
      absl::StrAppend(&svg, Text(kLeft - 8, Y(tick) + 4, ShortNumber(shown), "end"));
    }
    for (int i = 0; i <= 4 && last_ > first_; ++i) {
      const double time = first_ + (last_ - first_) * i / 4;
      absl::StrAppend(&svg, Text(X(time), kBottom + 18, Clock(time), i == 4 ? "end" : "middle"));
    }
    return svg;
  }

 private:
  const double low_;
  double high_ = 0;
  const double first_;
  const double last_;
};

}  // namespace

std::string EscapeXml(absl::string_view text) {
  return absl::StrReplaceAll(text,
                             {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

std::string ShortNumber(double value) {
  const double size = std::fabs(value);
  if (size >= 1e9) {
    return absl::StrFormat("%.3g", value);
  }
  if (size >= 1000) {
    std::string digits = absl::StrFormat("%.0f", size);
    for (size_t at = digits.size(); at > 3; at -= 3) {
      digits.insert(at - 3, 1, ',');
    }
    return absl::StrCat(value < 0 ? "-" : "", digits);
  }
  return absl::StrFormat("%.3g", value);
}

bool IsAbove(double value, double low) {
  return value - low > 1e-9 * std::max(1.0, std::fabs(low));
}

std::string ChartColour(size_t index) { return kColours[index % std::size(kColours)]; }

std::string LineChart(const std::vector<double>& times, const std::vector<ChartLine>& lines,
                      absl::string_view unit, double low) {
  const Axes axes(times, lines, low);
  std::string svg = absl::StrFormat(
      "<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" xmlns=\"http://www.w3.org/2000/svg\">", kWidth,
      kHeight);
  absl::StrAppend(&svg, axes.Draw(unit));
  const std::vector<double> x = Thinned(times);
  for (size_t i = 0; i < lines.size(); ++i) {
    const std::vector<double> y = Thinned(lines[i].values);
    // Dashes show what lies below.
    absl::StrAppend(&svg, "<polyline fill=\"none\" stroke=\"", ChartColour(i),
                    "\" stroke-width=\"2\"", i < 2 ? "" : " stroke-dasharray=\"7 5\"",
                    " points=\"");
    for (size_t point = 0; point < x.size(); ++point) {
      absl::StrAppendFormat(&svg, "%s%.1f,%.1f", point == 0 ? "" : " ", axes.X(x[point]),
                            axes.Y(y[point]));
    }
    absl::StrAppend(&svg, "\"><title>", EscapeXml(lines[i].name), "</title></polyline>");
  }
  absl::StrAppend(&svg, "</svg><p class=\"legend\">");
  for (size_t i = 0; i < lines.size(); ++i) {
    absl::StrAppend(&svg, "<span><i style=\"background:", ChartColour(i), "\"></i>",
                    EscapeXml(lines[i].name), "</span>");
  }
  return absl::StrCat(svg, "</p>");
}

}  // namespace expertmesh::replay
