#include "router_service/mesh/link_time.h"

#include <algorithm>
#include <cmath>

namespace expertmesh::mesh {
namespace {

// What earlier batches count when one more is added.
constexpr double kDecay = 1023.0 / 1024.0;
// Fewer batches say nothing.
constexpr double kFewest = 30;
constexpr double kStandardErrors = 2;

}  // namespace

void LinkTime::Add(uint64_t assignments, absl::Duration on_the_way) {
  const auto x = static_cast<double>(assignments);
  const double y = std::max(absl::ToDoubleMicroseconds(on_the_way), 0.0);
  const double from_x = x - mean_x_;
  const double from_y = y - mean_y_;
  weight_ = weight_ * kDecay + 1;
  mean_x_ += from_x / weight_;
  mean_y_ += from_y / weight_;
  xx_ = xx_ * kDecay + from_x * (x - mean_x_);
  xy_ = xy_ * kDecay + from_x * (y - mean_y_);
  yy_ = yy_ * kDecay + from_y * (y - mean_y_);
}

double LinkTime::MicrosPerAssignment() const {
  if (weight_ < kFewest || xx_ <= 0) {
    return 0;
  }
  const double slope = xy_ / xx_;
  const double unexplained = std::max(yy_ - slope * xy_, 0.0);
  const double error = std::sqrt(unexplained / (weight_ - 2) / xx_);
  return std::max(slope - kStandardErrors * error, 0.0);
}

}  // namespace expertmesh::mesh
