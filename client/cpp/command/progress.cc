#include "client/cpp/command/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

namespace expertmesh::command {
namespace {

constexpr int kWidth = 30;

}  // namespace

Progress::Progress(std::string what, uint64_t total)
    : what_(std::move(what)), shown_(isatty(STDERR_FILENO) == 1), total_(total) {}

Progress::~Progress() {
  if (shown_) {
    std::fputs("\r\033[K", stderr);
  }
}

void Progress::Add(uint64_t done) {
  if (!shown_) {
    return;
  }
  absl::MutexLock lock(&mutex_);
  done_ += done;
  Draw();
}

void Progress::Set(uint64_t done, uint64_t total) {
  if (!shown_) {
    return;
  }
  absl::MutexLock lock(&mutex_);
  done_ = done;
  total_ = total;
  Draw();
}

void Progress::Draw() {
  const double share =
      total_ == 0 ? 1.0 : std::min(1.0, static_cast<double>(done_) / static_cast<double>(total_));
  const int percent = static_cast<int>(share * 100);
  if (percent == drawn_percent_) {
    return;
  }
  drawn_percent_ = percent;
  const int filled = percent * kWidth / 100;
  std::fprintf(stderr, "\r%s [%s%s] %3d %%", what_.c_str(), std::string(filled, '#').c_str(),
               std::string(kWidth - filled, ' ').c_str(), percent);
  std::fflush(stderr);
}

}  // namespace expertmesh::command
