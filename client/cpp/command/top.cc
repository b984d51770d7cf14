#include <unistd.h>

#include <cstdio>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "client/cpp/command/commands.h"
#include "client/cpp/command/mesh.h"
#include "client/cpp/command/screen.h"
#include "client/cpp/command/top_figures.h"
#include "client/cpp/command/top_reading.h"
#include "client/cpp/command/top_report.h"
#include "common/base/clock.h"
#include "common/base/status_macros.h"

namespace expertmesh::command {
namespace {

// A router that does not answer for so long is away, and Ctrl-C waits no longer.
constexpr absl::Duration kPatience = absl::Seconds(2);
constexpr absl::Duration kLeastInterval = absl::Milliseconds(50);

// Frames, one after the other.
class Top {
 public:
  Top(const Options& options, client::Client* client)
      : router_(options.Text("router")),
        json_(options.Has("json")),
        reader_(client, options.Has("mesh")) {
    if (!json_ && !options.Has("count") && !options.Has("once") && isatty(STDOUT_FILENO) == 1) {
      screen_.emplace();
    }
  }

  // False when stdout cannot be written.
  bool ShowNext() {
    Read();
    return Show();
  }

  void Read() {
    before_ = std::exchange(now_, reader_.Read());
    if (now_->ok()) {
      last_ = (*now_)->time;
    }
  }

  bool Show() {
    if (json_) {
      Print(now_->ok() ? TopJson(router_, **now_, Figures())
                       : AwayJson(router_, now_->status(), absl::Now()));
    } else if (screen_) {
      screen_->Draw(Lines(screen_->Size()));
    } else {
      std::string text;
      for (const std::string& line : Lines({})) {
        text += line + "\n";
      }
      Print(text + "\n");
    }
    return std::ferror(stdout) == 0;
  }

  // False when it is to end.
  bool Wait(absl::Time until) {
    for (;;) {
      switch (WaitForWake(until - Clock::Real()->Now())) {
        case Wake::kStop:
          return false;
        case Wake::kTime:
          if (Clock::Real()->Now() >= until) {
            return true;
          }
          break;
        case Wake::kSuspend:
          if (screen_) {
            screen_->Suspend();
            Show();
          }
          break;
        case Wake::kResized:
          if (screen_) {
            Show();
          }
          break;
      }
    }
  }

  const absl::Status& status() const { return now_->status(); }

 private:
  TopFigures Figures() const {
    const bool follows = before_.has_value() && before_->ok();
    return FiguresOf(**now_, follows ? &**before_ : nullptr);
  }

  std::vector<std::string> Lines(const FrameSize& size) const {
    return now_->ok() ? DrawTop(router_, **now_, Figures(), size)
                      : DrawAway(router_, now_->status(), absl::Now(), last_, size);
  }

  static void Print(const std::string& text) {
    std::fputs(text.c_str(), stdout);
    std::fflush(stdout);
  }

  const std::string router_;
  const bool json_;
  TopReader reader_;
  std::optional<Screen> screen_;
  std::optional<absl::StatusOr<TopReading>> before_;
  std::optional<absl::StatusOr<TopReading>> now_;
  absl::Time last_ = absl::InfinitePast();
};

absl::Status Run(const Options& options) {
  const absl::Duration interval = std::max(options.Duration("interval"), kLeastInterval);
  // Before the client starts threads.
  BlockWakeSignals();
  client::ClientOptions connection;
  connection.describe_timeout = kPatience;
  connection.max_attempts = 1;
  ASSIGN_OR_RETURN(const std::unique_ptr<client::Client> client, Connect(options, connection));
  Top top(options, client.get());
  absl::Time next = Clock::Real()->Now() + interval;
  if (options.Has("once")) {
    top.Read();
    RETURN_IF_ERROR(In(options.Text("router"), top.status()));
    if (top.Wait(next)) {
      top.ShowNext();
    }
    return In(options.Text("router"), top.status());
  }
  const uint64_t frames =
      options.Has("count") ? options.Whole("count") : std::numeric_limits<uint64_t>::max();
  for (uint64_t frame = 1; top.ShowNext() && frame < frames && top.Wait(next); ++frame) {
    next = std::max(next, Clock::Real()->Now()) + interval;
  }
  return absl::OkStatus();
}

}  // namespace

Command TopCommand() {
  return {{"top", "The mesh, live, until Ctrl-C: nodes, layers, hottest experts, stage times.", "",
           WithRouter(
               {{.name = "interval",
                 .kind = OptionKind::kDuration,
                 .value = "TIME",
                 .help = "from one frame to the next",
                 .fallback = "1"},
                {.name = "count",
                 .kind = OptionKind::kWhole,
                 .value = "N",
                 .help = "end after so many frames, written one below the other",
                 .min = 1},
                {.name = "once",
                 .kind = OptionKind::kSwitch,
                 .help = "one frame, with rates: after one interval"},
                {.name = "mesh",
                 .kind = OptionKind::kSwitch,
                 .help = "load of all routers that report to this one, too"},
                {.name = "json", .kind = OptionKind::kSwitch, .help = "one JSON object a frame"}})},
          &Run};
}

}  // namespace expertmesh::command
