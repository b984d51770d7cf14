#include "tests/support/faulty_transport.h"

#include <algorithm>
#include <functional>
#include <random>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/cleanup/cleanup.h"
#include "absl/synchronization/mutex.h"
#include "common/base/timer_queue.h"
#include "common/transport/callback_serializer.h"

namespace expertmesh {

class FaultCounters {
 public:
  void Add(uint64_t FaultCounts::*counter) {
    absl::MutexLock lock(&mutex_);
    ++(counts_.*counter);
  }
  FaultCounts counts() const {
    absl::MutexLock lock(&mutex_);
    return counts_;
  }

 private:
  mutable absl::Mutex mutex_;
  FaultCounts counts_ ABSL_GUARDED_BY(mutex_);
};

namespace {

// What becomes of one frame.
struct Fate {
  std::vector<Frame> frames;  // What arrives; empty when lost.
  absl::Duration delay;
  bool disconnect = false;
};

// Fates of one direction of one connection. Not thread-safe.
class Faults {
 public:
  Faults(const FaultPlan& plan, uint64_t connection, uint64_t direction, FaultCounters* counters)
      : plan_(plan), counters_(counters) {
    std::seed_seq seed{plan.seed, plan.seed >> 32, connection, direction};
    random_.seed(seed);
  }

  // Draws the same number of times for every frame, so fates do not depend on each other.
  Fate Next(Frame frame) {
    const bool drop = Chance(plan_.drop);
    const bool delay = Chance(plan_.delay);
    const bool duplicate = Chance(plan_.duplicate);
    const bool truncate = Chance(plan_.truncate);
    const bool flip = Chance(plan_.flip);
    const double how_long = Uniform();
    const uint64_t where = random_();
    Fate fate;
    fate.disconnect = Chance(plan_.disconnect);
    counters_->Add(&FaultCounts::frames);
    if (fate.disconnect || drop) {
      counters_->Add(fate.disconnect ? &FaultCounts::disconnected : &FaultCounts::dropped);
      return fate;
    }
    if (delay) {
      counters_->Add(&FaultCounts::delayed);
      fate.delay = plan_.max_delay * how_long;
    }
    if (truncate && !frame.empty()) {
      counters_->Add(&FaultCounts::truncated);
      frame = frame.Sub(0, where % frame.size());
    }
    if (flip && !frame.empty()) {
      counters_->Add(&FaultCounts::flipped);
      std::string bytes = frame.Flatten();
      bytes[where % bytes.size()] ^= static_cast<char>(1u << (where >> 61));
      frame = Frame(std::move(bytes));
    }
    if (duplicate) {
      counters_->Add(&FaultCounts::duplicated);
      fate.frames.push_back(frame);
    }
    fate.frames.push_back(std::move(frame));
    return fate;
  }

 private:
  double Uniform() { return static_cast<double>(random_() >> 11) * 0x1p-53; }
  bool Chance(double probability) { return Uniform() < probability; }

  const FaultPlan plan_;
  FaultCounters* const counters_;
  std::mt19937_64 random_;
};

// What becomes of one call.
enum class CallFate { kUnharmed, kLost, kAnswerLost };

// Fates of the calls of one connection. Not thread-safe.
class CallFaults {
 public:
  CallFaults(const FaultPlan& plan, uint64_t connection, FaultCounters* counters)
      : plan_(plan), counters_(counters) {
    std::seed_seq seed{plan.seed, plan.seed >> 32, connection, uint64_t{2}};
    random_.seed(seed);
  }

  CallFate Next() {
    const bool lost = Chance(plan_.lose_call);
    const bool answer_lost = Chance(plan_.lose_answer);
    counters_->Add(&FaultCounts::calls);
    if (lost) {
      counters_->Add(&FaultCounts::lost_calls);
      return CallFate::kLost;
    }
    if (answer_lost) {
      counters_->Add(&FaultCounts::lost_answers);
      return CallFate::kAnswerLost;
    }
    return CallFate::kUnharmed;
  }

 private:
  bool Chance(double probability) {
    return static_cast<double>(random_() >> 11) * 0x1p-53 < probability;
  }

  const FaultPlan plan_;
  FaultCounters* const counters_;
  std::mt19937_64 random_;
};

class FaultyConnection final : public NodeConnection {
 public:
  FaultyConnection(Transport* inner, const FaultPlan& plan, uint64_t index, Clock* clock,
                   std::shared_ptr<FaultCounters> counters, std::string address,
                   NodeObserver* observer)
      : transport_(inner),
        clock_(clock),
        counters_(std::move(counters)),
        address_(std::move(address)),
        observer_(observer),
        in_faults_(plan, index, 0, counters_.get()),
        out_faults_(plan, index, 1, counters_.get()),
        call_faults_(plan, index, counters_.get()),
        timers_(clock) {
    Reconnect(0);
  }

  ~FaultyConnection() override {
    Session last;
    {
      absl::MutexLock lock(&session_mutex_);
      closed_ = true;
      last = std::move(session_);
    }
    last.connection.reset();
    serializer_.Close();  // No callback afterwards. timers_ goes next, by itself.
  }

  absl::Status Send(Frame frame) override {
    Fate fate;
    {
      absl::MutexLock lock(&mutex_);
      fate = out_faults_.Next(std::move(frame));
      if (fate.delay > absl::ZeroDuration() || out_waiting_ > 0) {
        Delay(std::move(fate), &out_release_, &out_waiting_, /*inbound=*/false);
        return absl::OkStatus();
      }
    }
    return SendNow(std::move(fate));
  }

  size_t QueuedBytes() const override {
    absl::ReaderMutexLock lock(&session_mutex_);
    return session_.connection == nullptr ? 0 : session_.connection->QueuedBytes();
  }

  void PauseReading() override {
    absl::ReaderMutexLock lock(&session_mutex_);
    if (session_.connection != nullptr) {
      session_.connection->PauseReading();
    }
  }

  void LoadExperts(const internal::v1::LoadExpertsRequest& request, absl::Duration timeout,
                   LoadDone done) override {
    Call(&NodeConnection::LoadExperts, request, timeout, std::move(done));
  }
  void UnloadExperts(const internal::v1::UnloadExpertsRequest& request, absl::Duration timeout,
                     UnloadDone done) override {
    Call(&NodeConnection::UnloadExperts, request, timeout, std::move(done));
  }

 private:
  template <typename Request, typename Done>
  void Call(void (NodeConnection::*method)(const Request&, absl::Duration, Done),
            const Request& request, absl::Duration timeout, Done done) {
    CallFate fate = CallFate::kUnharmed;
    {
      absl::MutexLock lock(&mutex_);
      fate = call_faults_.Next();
    }
    const absl::Status lost = absl::UnavailableError("lost by the fault plan");
    if (fate == CallFate::kLost) {
      Lose(std::move(done), lost);
      return;
    }
    if (fate == CallFate::kAnswerLost) {
      done = [done = std::move(done), lost](auto) mutable { done(lost); };
    }
    absl::ReaderMutexLock lock(&session_mutex_);
    if (session_.connection != nullptr) {
      (session_.connection.get()->*method)(request, timeout, std::move(done));
    } else {  // Between two connections, or at the end of all.
      Lose(std::move(done), lost);
    }
  }

  // By the timer thread, or when that ends.
  template <typename Done>
  void Lose(Done done, const absl::Status& why) {
    absl::Cleanup end = [done = std::move(done), why]() mutable { done(why); };
    timers_.Schedule(clock_->Now(), [end = std::move(end)]() mutable { std::move(end).Invoke(); });
  }

  // Hears one inner connection.
  class Ear final : public NodeObserver {
   public:
    Ear(FaultyConnection* owner, uint64_t session) : owner_(owner), session_(session) {}
    void OnStatus(const internal::v1::WatchStatusResponse& status) override {
      owner_->InSession(session_, [owner = owner_, status] {
        owner->is_up_ = true;
        owner->observer_->OnStatus(status);
      });
    }
    void OnFrame(Frame frame) override { owner_->Receive(session_, std::move(frame)); }
    void OnDisconnected(const absl::Status& why) override {
      owner_->InSession(session_, [owner = owner_, why] {
        owner->is_up_ = false;
        owner->observer_->OnDisconnected(why);
      });
    }

   private:
    FaultyConnection* const owner_;
    const uint64_t session_;
  };

  struct Session {
    std::unique_ptr<Ear> ear;
    std::unique_ptr<NodeConnection> connection;  // Gone before its ear.
  };

  // Runs `action` after all that came before, unless the session has been cut by then.
  void InSession(uint64_t session, std::function<void()> action) {
    serializer_.Run([this, session, action = std::move(action)] {
      if (session == current_) {
        action();
      }
    });
  }

  void Receive(uint64_t session, Frame frame) {
    Fate fate;
    {
      absl::MutexLock lock(&mutex_);
      fate = in_faults_.Next(std::move(frame));
      if (fate.delay > absl::ZeroDuration() || in_waiting_ > 0) {
        in_session_ = session;
        Delay(std::move(fate), &in_release_, &in_waiting_, /*inbound=*/true);
        return;
      }
    }
    ReceiveNow(session, std::move(fate));
  }

  // The frame goes on after its delay, and not before those ahead of it.
  void Delay(Fate fate, absl::Time* release, int* waiting, bool inbound)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    *release = std::max(*release, clock_->Now() + fate.delay);
    ++*waiting;
    timers_.Schedule(*release,
                     [this, inbound, waiting, session = in_session_, fate = std::move(fate)] {
                       if (inbound) {
                         ReceiveNow(session, fate);
                       } else {
                         SendNow(fate).IgnoreError();  // As lost as in a broken connection.
                       }
                       absl::MutexLock lock(&mutex_);
                       --*waiting;
                     });
  }

  void ReceiveNow(uint64_t session, Fate fate) {
    for (Frame& frame : fate.frames) {
      InSession(session, [this, frame = std::move(frame)] { observer_->OnFrame(frame); });
    }
    if (fate.disconnect) {
      Cut();
    }
  }

  absl::Status SendNow(Fate fate) {
    if (fate.disconnect) {
      Cut();
    }
    absl::Status status;
    absl::ReaderMutexLock lock(&session_mutex_);
    for (Frame& frame : fate.frames) {
      if (session_.connection != nullptr) {
        status = session_.connection->Send(std::move(frame));
      }
    }
    return status;
  }

  // By the timer thread: an inner connection must not be destroyed by a callback of its own, nor
  // the observer be called from within Send.
  void Cut() {
    timers_.Schedule(clock_->Now(), [this] {
      uint64_t next = 0;
      serializer_.Run([this] {
        if (is_up_) {
          is_up_ = false;
          observer_->OnDisconnected(absl::UnavailableError("cut by the fault plan"));
        }
        ++current_;
      });
      {
        absl::MutexLock lock(&mutex_);
        next = ++sessions_;
      }
      Reconnect(next);
    });
  }

  void Reconnect(uint64_t number) {
    Session old;
    {
      absl::MutexLock lock(&session_mutex_);
      if (closed_) {
        return;
      }
      old = std::move(session_);
      session_ = {};
    }
    old.connection.reset();
    old.ear.reset();
    auto ear = std::make_unique<Ear>(this, number);
    absl::MutexLock lock(&session_mutex_);
    if (!closed_) {
      session_.connection = transport_->Connect(address_, ear.get());
      session_.ear = std::move(ear);
    }
  }

  Transport* const transport_;
  Clock* const clock_;
  const std::shared_ptr<FaultCounters> counters_;
  const std::string address_;
  NodeObserver* const observer_;

  absl::Mutex mutex_;
  Faults in_faults_ ABSL_GUARDED_BY(mutex_);
  Faults out_faults_ ABSL_GUARDED_BY(mutex_);
  CallFaults call_faults_ ABSL_GUARDED_BY(mutex_);
  // When the last delayed frame of a direction goes on, and how many wait.
  absl::Time in_release_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  absl::Time out_release_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  int in_waiting_ ABSL_GUARDED_BY(mutex_) = 0;
  int out_waiting_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t in_session_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t sessions_ ABSL_GUARDED_BY(mutex_) = 0;

  CallbackSerializer serializer_;
  // Used in the serializer only.
  uint64_t current_ = 0;
  bool is_up_ = false;

  // Shared for sending, exclusive for replacing. Sending never blocks.
  mutable absl::Mutex session_mutex_;
  bool closed_ ABSL_GUARDED_BY(session_mutex_) = false;
  Session session_ ABSL_GUARDED_BY(session_mutex_);

  TimerQueue timers_;  // Last: first to go.
};

}  // namespace

FaultyTransport::FaultyTransport(Transport* inner, const FaultPlan& plan, Clock* clock)
    : inner_(inner), plan_(plan), clock_(clock), counters_(std::make_shared<FaultCounters>()) {}

FaultyTransport::~FaultyTransport() = default;

std::unique_ptr<NodeConnection> FaultyTransport::Connect(std::string address,
                                                         NodeObserver* observer) {
  return std::make_unique<FaultyConnection>(inner_, plan_, connections_.fetch_add(1), clock_,
                                            counters_, std::move(address), observer);
}

FaultCounts FaultyTransport::counts() const { return counters_->counts(); }

}  // namespace expertmesh
