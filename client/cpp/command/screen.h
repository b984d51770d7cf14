// A terminal that is drawn on again and again, and given back as it was.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_SCREEN_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_SCREEN_H_

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/cpp/command/top_report.h"

namespace expertmesh::command {

// What ended a wait.
enum class Wake {
  kTime,
  // Ctrl-C, or another signal that ends a program.
  kStop,
  // The terminal has another size.
  kResized,
  // Ctrl-Z.
  kSuspend,
};

// Has the signals of `Wake` wait for WaitForWake in this thread and all that it starts later.
void BlockWakeSignals();

// Until one of them comes, but no longer than `time`.
Wake WaitForWake(absl::Duration time);

// Takes stdout, which is a terminal: another screen of it, without a cursor. Both come back at the
// end of this.
class Screen {
 public:
  Screen();
  ~Screen();
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  FrameSize Size() const;

  // Over what was drawn before, without wiping it first: that would flicker.
  void Draw(const std::vector<std::string>& lines);

  // Gives the terminal back, and stops the process until it is told to go on (Ctrl-Z, fg).
  void Suspend();

 private:
  void Enter();
  void Leave();
};

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_SCREEN_H_
