#include "router_service/mesh/node_judge.h"

#include <optional>
#include <utility>

namespace expertmesh::mesh {
namespace {

// So much longer than its limit may an answer be overdue.
constexpr absl::Duration kInterval = absl::Milliseconds(50);

}  // namespace

NodeJudge::NodeJudge(const Transport* transport, TimerQueue* timers, Clock* clock,
                     std::function<Subjects()> subjects)
    : transport_(transport),
      timers_(timers),
      clock_(clock),
      subjects_(std::move(subjects)),
      timer_(timers) {
  absl::MutexLock lock(&mutex_);
  Schedule();
}

NodeJudge::~NodeJudge() { Stop(); }

void NodeJudge::Stop() {
  TimerQueue::Id begun = 0;
  {
    absl::MutexLock lock(&mutex_);
    stopped_ = true;
    begun = timer_.CancelForGood();
  }
  timers_->AwaitEnd(begun);
}

void NodeJudge::Schedule() {
  timer_.Set(clock_->Now() + kInterval, [this] { Judge(); });
}

void NodeJudge::Judge() {
  {
    // First, so that time that passes meanwhile brings the next judgement nearer.
    absl::MutexLock lock(&mutex_);
    if (stopped_) {
      return;
    }
    Schedule();
  }
  const Subjects subjects = subjects_();
  std::vector<absl::Duration> paces;
  for (const std::shared_ptr<NodeLink>& link : subjects.links) {
    if (const auto pace = link == nullptr ? std::nullopt : link->RecentPace()) {
      paces.push_back(*pace);
    }
  }
  const Judgement by{clock_->Now(), transport_->AwakeSince(), UsualPace(&paces),
                     subjects.view.get()};
  for (const std::shared_ptr<NodeLink>& link : subjects.links) {
    if (link != nullptr) {
      link->Judge(by);
    }
  }
}

}  // namespace expertmesh::mesh
