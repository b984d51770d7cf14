#include "client/cpp/command/screen.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace expertmesh::command {
namespace {

constexpr size_t kLeastColumns = 40;
constexpr size_t kLeastLines = 12;

sigset_t WakeSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH}) {
    sigaddset(&signals, number);
  }
  return signals;
}

void Write(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

}  // namespace

void BlockWakeSignals() {
  const sigset_t signals = WakeSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

Wake WaitForWake(absl::Duration time) {
  const sigset_t signals = WakeSignals();
  const timespec limit = absl::ToTimespec(std::max(time, absl::ZeroDuration()));
  switch (sigtimedwait(&signals, nullptr, &limit)) {
    case SIGINT:
    case SIGTERM:
    case SIGHUP:
    case SIGQUIT:
      return Wake::kStop;
    case SIGWINCH:
      return Wake::kResized;
    case SIGTSTP:
      return Wake::kSuspend;
    default:
      return Wake::kTime;
  }
}

Screen::Screen() { Enter(); }

Screen::~Screen() { Leave(); }

FrameSize Screen::Size() const {
  winsize size = {};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0) {
    return {.columns = 80, .lines = 24};
  }
  // Wiping the rest of a line that fills the last column takes its last character.
  return {.columns = std::max<size_t>(size.ws_col - 1, kLeastColumns),
          .lines = std::max<size_t>(size.ws_row, kLeastLines)};
}

void Screen::Draw(const std::vector<std::string>& lines) {
  // The end of each line and what is below the last are wiped; the last ends without a new line,
  // which would scroll.
  Write(absl::StrCat("\033[H", absl::StrJoin(lines, "\033[K\r\n"), "\033[K\033[J"));
}

void Screen::Suspend() {
  Leave();
  std::raise(SIGSTOP);
  Enter();
}

void Screen::Enter() { Write("\033[?1049h\033[?25l\033[2J"); }

void Screen::Leave() { Write("\033[?25h\033[?1049l"); }

}  // namespace expertmesh::command
