#include "tests/support/in_process_transport.h"

#include <deque>
#include <functional>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/address.h"
#include "common/transport/pending_calls.h"

namespace expertmesh {

// What the two threads of one connection, its sinks and the network share. Sinks may outlive all
// else. A session is the time from one OpenCompute until the destruction of its handler.
class InProcessLink : public std::enable_shared_from_this<InProcessLink> {
 public:
  // What a call asks of the node.
  using Work = std::function<absl::StatusOr<Frame>(NodeEndpoint*)>;

  InProcessLink(const InProcessOptions& options, std::string address, NodeObserver* observer,
                TimerQueue* deadlines)
      : options_(options),
        address_(std::move(address)),
        observer_(observer),
        deadlines_(deadlines) {}

  void Start() {
    node_thread_ = std::thread([this] { RunNode(); });
    router_thread_ = std::thread([this] { RunRouter(); });
    call_thread_ = std::thread([this] { RunCalls(); });
  }

  void Close() {
    {
      absl::MutexLock lock(&mutex_);
      closed_ = true;
      up_ = false;
    }
    node_thread_.join();
    router_thread_.join();
    calls_->Close(
        absl::UnavailableError(absl::StrCat("the connection to node ", address_, " was closed")));
    call_thread_.join();
  }

  // Null: the node is not there. Reported when it was there, and the first time.
  void SetEndpoint(NodeEndpoint* endpoint) {
    absl::MutexLock lock(&mutex_);
    wanted_ = endpoint;
    if (wanted_ != open_) {
      up_ = false;
      break_reason_ = absl::UnavailableError(absl::StrCat("node ", address_, " is gone"));
    }
    if (wanted_ == nullptr && open_ == nullptr) {
      PushDisconnected(absl::UnavailableError(absl::StrCat("no node at ", address_)));
    }
  }

  void Refuse(const absl::Status& why) {
    absl::MutexLock lock(&mutex_);
    PushDisconnected(why);
  }

  // Waits until no endpoint but the one wanted is in use.
  void AwaitSwitched() {
    absl::MutexLock lock(&mutex_);
    const auto switched = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return (open_ == nullptr || open_ == wanted_) && (calling_ == nullptr || calling_ == wanted_);
    };
    mutex_.Await(absl::Condition(&switched));
  }

  absl::Status Send(Frame frame) {
    if (frame.size() > options_.frame_limit_bytes) {
      return TooLarge(frame.size());
    }
    absl::MutexLock lock(&mutex_);
    if (!up_) {
      return absl::UnavailableError(absl::StrCat("node ", address_, " is not connected"));
    }
    if (to_node_bytes_ >= options_.window_bytes) {
      return WindowFull(options_.window_bytes, to_node_bytes_);
    }
    to_node_bytes_ += frame.size();
    to_node_.push_back(std::move(frame));
    return absl::OkStatus();
  }

  size_t QueuedBytes() const {
    absl::MutexLock lock(&mutex_);
    return to_node_bytes_;
  }

  void Call(Work work, absl::Duration timeout, PendingCalls::Done done) {
    const uint64_t id = calls_->Add(std::move(done));
    const TimerQueue::Id deadline =
        deadlines_->Schedule(Clock::Real()->Now() + timeout, [calls = calls_, id] {
          calls->End(id, absl::DeadlineExceededError("the node has not answered in time"));
        });
    absl::MutexLock lock(&mutex_);
    waiting_calls_.push_back({id, deadline, session_, std::move(work)});
  }

 private:
  struct WaitingCall {
    uint64_t id;
    TimerQueue::Id deadline;
    uint64_t session;
    Work work;
  };

  // Calls of one connection one after the other, as a node makes its changes.
  void RunCalls() {
    absl::MutexLock lock(&mutex_);
    const auto work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return closed_ || !waiting_calls_.empty();
    };
    for (;;) {
      mutex_.Await(absl::Condition(&work));
      if (closed_) {
        return;
      }
      WaitingCall call = std::move(waiting_calls_.front());
      waiting_calls_.pop_front();
      NodeEndpoint* const endpoint = up_ && session_ == call.session ? open_ : nullptr;
      calling_ = endpoint;
      mutex_.Unlock();
      absl::StatusOr<Frame> result =
          absl::UnavailableError(absl::StrCat("node ", address_, " is not connected"));
      if (endpoint != nullptr) {
        result = call.work(endpoint);
      }
      deadlines_->Cancel(call.deadline);
      mutex_.Lock();
      calling_ = nullptr;
      mutex_.Unlock();
      calls_->End(call.id, std::move(result));
      mutex_.Lock();
    }
  }

  struct Event {
    enum class Kind { kStatus, kFrame, kDisconnected } kind = Kind::kFrame;
    Frame frame;
    internal::v1::WatchStatusResponse status;
    absl::Status why;
  };

  class Sink final : public FrameSink {
   public:
    Sink(std::shared_ptr<InProcessLink> link, uint64_t session)
        : link_(std::move(link)), session_(session) {}
    absl::Status Send(Frame frame) override { return link_->Answer(session_, std::move(frame)); }
    bool IsGone() const override { return link_->AnswersUnwanted(session_); }

   private:
    const std::shared_ptr<InProcessLink> link_;
    const uint64_t session_;
  };

  absl::Status TooLarge(size_t bytes) const {
    return absl::InvalidArgumentError(absl::StrCat("the frame has ", bytes, " bytes, the limit is ",
                                                   options_.frame_limit_bytes, "; send less"));
  }

  static absl::Status WindowFull(size_t window, size_t queued) {
    return absl::ResourceExhaustedError(absl::StrCat("the window of ", window,
                                                     " bytes is full with ", queued,
                                                     " bytes queued; wait or send elsewhere"));
  }

  absl::Status Answer(uint64_t session, Frame frame) {
    if (frame.size() > options_.frame_limit_bytes) {
      return TooLarge(frame.size());
    }
    absl::MutexLock lock(&mutex_);
    if (IsOver(session)) {
      return absl::UnavailableError("the stream is gone, so this answer cannot be sent");
    }
    if (to_router_bytes_ >= options_.answer_bytes) {
      up_ = false;
      break_reason_ = WindowFull(options_.answer_bytes, to_router_bytes_);
      return break_reason_;
    }
    to_router_bytes_ += frame.size();
    Event event;
    event.frame = std::move(frame);
    to_router_.push_back(std::move(event));
    return absl::OkStatus();
  }

  bool AnswersUnwanted(uint64_t session) const {
    absl::MutexLock lock(&mutex_);
    return IsOver(session);
  }

  bool IsOver(uint64_t session) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return closed_ || session != session_ || open_ == nullptr || !break_reason_.ok();
  }

  void PushDisconnected(absl::Status why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    to_router_.clear();
    to_router_bytes_ = 0;
    Event event;
    event.kind = Event::Kind::kDisconnected;
    event.why = std::move(why);
    to_router_.push_back(std::move(event));
  }

  void PushStatus(internal::v1::WatchStatusResponse status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    Event event;
    event.kind = Event::Kind::kStatus;
    event.status = std::move(status);
    to_router_.push_back(std::move(event));
  }

  bool NodeHasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (closed_) {
      return true;
    }
    return open_ == nullptr ? wanted_ != nullptr
                            : !break_reason_.ok() || status_changed_ || !to_node_.empty();
  }

  void AwaitNodeWork() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const auto work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return NodeHasWork(); };
    mutex_.Await(absl::Condition(&work));
  }

  // All use of the endpoint is here, on the node's thread.
  void RunNode() {
    absl::MutexLock lock(&mutex_);
    for (;;) {
      AwaitNodeWork();
      if (closed_) {
        return;
      }
      open_ = wanted_;
      break_reason_ = absl::OkStatus();
      status_changed_ = true;
      ++session_;
      RunSession(open_, session_);
      to_node_.clear();
      to_node_bytes_ = 0;
      if (!closed_) {
        PushDisconnected(std::exchange(break_reason_, absl::OkStatus()));
      }
      open_ = nullptr;
    }
  }

  // Returns when the session is over. Holds mutex_ except while the endpoint is at work.
  void RunSession(NodeEndpoint* endpoint, uint64_t session) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    mutex_.Unlock();
    std::unique_ptr<StreamHandler> handler =
        endpoint->OpenCompute(std::make_shared<Sink>(shared_from_this(), session));
    std::unique_ptr<StatusSubscription> subscription = endpoint->Subscribe([this] {
      absl::MutexLock status_lock(&mutex_);
      status_changed_ = true;
    });
    mutex_.Lock();
    for (AwaitNodeWork(); !closed_ && break_reason_.ok(); AwaitNodeWork()) {
      if (status_changed_) {
        status_changed_ = false;
        mutex_.Unlock();
        internal::v1::WatchStatusResponse status = endpoint->Status();
        mutex_.Lock();
        if (!closed_ && break_reason_.ok()) {
          PushStatus(std::move(status));
        }
        continue;
      }
      Frame frame = std::move(to_node_.front());
      to_node_.pop_front();
      to_node_bytes_ -= frame.size();
      mutex_.Unlock();
      handler->OnFrame(std::move(frame));
      mutex_.Lock();
    }
    mutex_.Unlock();
    subscription.reset();
    handler.reset();
    mutex_.Lock();
  }

  void RunRouter() {
    const auto work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return closed_ || !to_router_.empty();
    };
    for (;;) {
      Event event;
      {
        absl::MutexLock lock(&mutex_);
        mutex_.Await(absl::Condition(&work));
        if (closed_) {
          return;
        }
        event = std::move(to_router_.front());
        to_router_.pop_front();
        to_router_bytes_ -= event.frame.size();
        if (event.kind == Event::Kind::kStatus) {
          // Unless the session broke since: then the next event says so.
          up_ = open_ != nullptr && open_ == wanted_ && break_reason_.ok();
        }
      }
      if (event.kind == Event::Kind::kDisconnected) {
        calls_->EndAll(event.why);
      }
      Deliver(std::move(event));
    }
  }

  void Deliver(Event event) {
    switch (event.kind) {
      case Event::Kind::kStatus:
        observer_->OnStatus(event.status);
        break;
      case Event::Kind::kFrame:
        observer_->OnFrame(std::move(event.frame));
        break;
      case Event::Kind::kDisconnected:
        observer_->OnDisconnected(event.why);
        break;
    }
  }

  const InProcessOptions options_;
  const std::string address_;
  NodeObserver* const observer_;
  TimerQueue* const deadlines_;
  // Shared with timers.
  const std::shared_ptr<PendingCalls> calls_ = std::make_shared<PendingCalls>();

  mutable absl::Mutex mutex_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  NodeEndpoint* wanted_ ABSL_GUARDED_BY(mutex_) = nullptr;  // Registered at the address.
  NodeEndpoint* open_ ABSL_GUARDED_BY(mutex_) = nullptr;    // In use by the session.
  uint64_t session_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status break_reason_ ABSL_GUARDED_BY(mutex_);  // Not OK: the session must end.
  bool status_changed_ ABSL_GUARDED_BY(mutex_) = false;
  bool up_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<Frame> to_node_ ABSL_GUARDED_BY(mutex_);
  size_t to_node_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<Event> to_router_ ABSL_GUARDED_BY(mutex_);
  size_t to_router_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<WaitingCall> waiting_calls_ ABSL_GUARDED_BY(mutex_);
  NodeEndpoint* calling_ ABSL_GUARDED_BY(mutex_) = nullptr;  // In use by call_thread_.

  std::thread node_thread_;
  std::thread router_thread_;
  std::thread call_thread_;
};

namespace {

class InProcessConnection final : public NodeConnection {
 public:
  explicit InProcessConnection(std::shared_ptr<InProcessLink> link) : link_(std::move(link)) {}
  ~InProcessConnection() override { link_->Close(); }

  absl::Status Send(Frame frame) override { return link_->Send(std::move(frame)); }
  size_t QueuedBytes() const override { return link_->QueuedBytes(); }
  void PauseReading() override {}  // Nothing would be saved.
  void LoadExperts(const internal::v1::LoadExpertsRequest& request, absl::Duration timeout,
                   LoadDone done) override {
    link_->Call([request](NodeEndpoint* node) { return Encoded(node->LoadExperts(request)); },
                timeout, ParsedFor<internal::v1::LoadExpertsResponse>(std::move(done)));
  }
  void UnloadExperts(const internal::v1::UnloadExpertsRequest& request, absl::Duration timeout,
                     UnloadDone done) override {
    link_->Call([request](NodeEndpoint* node) { return Encoded(node->UnloadExperts(request)); },
                timeout, ParsedFor<internal::v1::UnloadExpertsResponse>(std::move(done)));
  }

 private:
  template <typename Response>
  static absl::StatusOr<Frame> Encoded(const absl::StatusOr<Response>& response) {
    if (!response.ok()) {
      return response.status();
    }
    return Frame(response->SerializeAsString());
  }

  const std::shared_ptr<InProcessLink> link_;
};

}  // namespace

void InProcessNetwork::Register(const std::string& address, NodeEndpoint* endpoint) {
  Replace(address, endpoint);
}

void InProcessNetwork::Unregister(const std::string& address) { Replace(address, nullptr); }

void InProcessNetwork::Replace(const std::string& address, NodeEndpoint* endpoint) {
  std::vector<std::shared_ptr<InProcessLink>> links;
  {
    absl::MutexLock lock(&mutex_);
    endpoints_[address] = endpoint;
    links = LinksTo(address);
    for (const auto& link : links) {
      link->SetEndpoint(endpoint);
    }
  }
  for (const auto& link : links) {
    link->AwaitSwitched();
  }
}

std::vector<std::shared_ptr<InProcessLink>> InProcessNetwork::LinksTo(const std::string& address) {
  std::vector<std::weak_ptr<InProcessLink>>& known = links_[address];
  std::vector<std::shared_ptr<InProcessLink>> links;
  for (const auto& weak : known) {
    if (std::shared_ptr<InProcessLink> link = weak.lock()) {
      links.push_back(std::move(link));
    }
  }
  known.assign(links.begin(), links.end());
  return links;
}

std::unique_ptr<NodeConnection> InProcessNetwork::Connect(std::string address,
                                                          NodeObserver* observer) {
  auto link = std::make_shared<InProcessLink>(options_, address, observer, &deadlines_);
  if (const absl::Status status = CheckAddress(address); !status.ok()) {
    link->Refuse(status);
  } else {
    absl::MutexLock lock(&mutex_);
    links_[address].push_back(link);
    const auto it = endpoints_.find(address);
    link->SetEndpoint(it == endpoints_.end() ? nullptr : it->second);
  }
  link->Start();
  return std::make_unique<InProcessConnection>(std::move(link));
}

}  // namespace expertmesh
