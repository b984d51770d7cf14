#include "client/cpp/library/stream_requests.h"

#include <iterator>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cpp/library/forward_codec.h"
#include "common/base/clock.h"
#include "common/wire/error_reason.h"

namespace expertmesh::client {
namespace {

constexpr char kForwardStream[] = "/expertmesh.v1.Router/ForwardStream";

absl::Status TooLate(absl::Duration timeout) {
  return absl::DeadlineExceededError(
      absl::StrCat("no answer within the timeout of ", absl::FormatDuration(timeout)));
}

// A call that did not end because of what was sent on it: the router said so, or the connection was
// lost, or a proxy on the way ended it, which has several codes and no reason. Then UNAVAILABLE.
absl::Status AsLostConnection(const absl::Status& why) {
  if (ReasonOf(why) != v1::ERROR_REASON_UNSPECIFIED) {
    return why;
  }
  switch (why.code()) {
    case absl::StatusCode::kOk:
      return absl::UnavailableError("the router closed it");
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
      return absl::UnavailableError(why.message());
    default:
      return why;
  }
}

}  // namespace

void StreamRequests::Send(uint32_t layer, const Matrix& hidden, const ForwardOptions& options,
                          ForwardCallback done) {
  uint64_t id = 0;
  bool open = false;
  absl::Status broken;
  {
    absl::MutexLock lock(&mutex_);
    broken = broken_;
    if (broken.ok()) {
      id = next_id_++;
      Request& request = requests_[id];
      request.asked = std::make_shared<const Asked>(Asked{layer, hidden, options});
      request.done = std::move(done);
      StartTimer(id, &request);
      sent_something_ = true;
      // A call that is being opened sends all there are, once it is.
      open = stream_ == nullptr && !opening_;
      opening_ = opening_ || open;
    }
  }
  if (!broken.ok()) {
    done(broken);
  } else if (open) {
    Open();
  } else {
    SendNow(id);
  }
}

void StreamRequests::StartTimer(uint64_t id, Request* request) {
  const absl::Duration timeout = request->asked->options.timeout;
  if (timeout == absl::InfiniteDuration()) {
    return;
  }
  request->deadline = Clock::Real()->Now() + timeout;
  request->timer =
      options_.timers->Schedule(request->deadline, [weak = weak_from_this(), id, timeout] {
        if (const auto self = weak.lock()) {
          self->Answer(id, TooLate(timeout));
        }
      });
}

void StreamRequests::Open() {
  {
    absl::MutexLock lock(&mutex_);
    if (!broken_.ok()) {
      return;
    }
    ++calls_;
  }
  net::CallOptions call;
  call.send_queue_bytes = options_.window_bytes;
  net::StreamCallbacks callbacks;
  callbacks.on_frame = [self = shared_from_this()](const Frame& frame) { self->OnFrame(frame); };
  // The call's own, so that it is told from those that follow. Guarded by mutex_.
  const auto ended = std::make_shared<bool>(false);
  callbacks.on_closed = [self = shared_from_this(), ended](const absl::Status& why) {
    self->OnClosed(why, ended.get());
  };
  const std::shared_ptr<net::ClientStream> stream =
      options_.client->OpenStream(kForwardStream, call, std::move(callbacks));
  std::vector<uint64_t> ids;
  bool cancel = false;
  {
    absl::MutexLock lock(&mutex_);
    if (*ended) {
      return;
    }
    opening_ = false;
    stream_ = stream;
    cancel = !broken_.ok();
    for (const auto& [id, request] : requests_) {
      if (!request.waits) {
        ids.push_back(id);
      }
    }
  }
  if (cancel) {
    stream->Cancel();
  }
  for (const uint64_t id : ids) {
    SendNow(id);
  }
}

void StreamRequests::SendNow(uint64_t id) {
  std::shared_ptr<net::ClientStream> stream;
  std::shared_ptr<const Asked> asked;
  absl::Time deadline;
  bool again = false;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = requests_.find(id);
    if (found == requests_.end()) {
      return;
    }
    found->second.waits = false;
    stream = stream_;
    if (stream == nullptr) {
      return;
    }
    again = ++found->second.attempts > 1;
    asked = found->second.asked;
    deadline = found->second.deadline;
  }
  if (again && deadline != absl::InfiniteFuture()) {
    Asked now = *asked;
    now.options.timeout = deadline - Clock::Real()->Now();
    asked = std::make_shared<const Asked>(std::move(now));
  }
  absl::StatusOr<Frame> frame =
      EncodeForward(id, asked->layer, asked->hidden, asked->options, options_.max_message_bytes);
  const absl::Status sent =
      frame.ok() ? stream->Send(*std::move(frame)) : std::move(frame).status();
  // UNAVAILABLE: the call has ended, and the next one sends it.
  if (!sent.ok() && !absl::IsUnavailable(sent)) {
    Answer(id, sent);
  }
}

void StreamRequests::Beat() {
  std::shared_ptr<net::ClientStream> stream;
  {
    absl::MutexLock lock(&mutex_);
    if (!std::exchange(sent_something_, false)) {
      stream = stream_;
    }
  }
  if (stream != nullptr) {
    stream->Send(EncodeHeartbeat()).IgnoreError();
  }
}

void StreamRequests::OnFrame(const Frame& frame) {
  absl::StatusOr<ForwardAnswer> answer = DecodeForward(frame);
  if (!answer.ok()) {
    // Which request it was meant for cannot be known, and so none can be trusted to be answered.
    Break(absl::UnavailableError(
        absl::StrCat("stream to ", options_.address, ": ", answer.status().message())));
    return;
  }
  {
    absl::MutexLock lock(&mutex_);
    failures_ = 0;
  }
  if (answer->heartbeat || TryAgain(answer->request_id, answer->result.status())) {
    return;
  }
  options_.retries->Answered();
  Answer(answer->request_id, std::move(answer->result));
}

bool StreamRequests::TryAgain(uint64_t id, const absl::Status& why) {
  if (why.ok()) {
    return false;
  }
  std::optional<absl::Duration> pause;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = requests_.find(id);
    if (found == requests_.end()) {
      return false;
    }
    pause = options_.retries->After(why, found->second.attempts);
    if (!pause.has_value() || Clock::Real()->Now() + *pause >= found->second.deadline) {
      return false;
    }
    found->second.waits = true;
  }
  options_.waits->Wait(*pause, [self = shared_from_this(), id](const absl::Status& status) {
    if (status.ok()) {
      self->SendNow(id);
    }
  });
  return true;
}

StreamRequests::AfterEnd StreamRequests::JudgeEnd(const absl::Status& why) {
  AfterEnd after;
  if (!broken_.ok()) {
    return after;
  }
  const bool asked = !requests_.empty();
  // What was sent too often already may be why calls end.
  for (auto it = requests_.begin(); it != requests_.end();) {
    const auto next = std::next(it);
    if (it->second.attempts >= options_.retries->max_attempts()) {
      after.exhausted.insert(requests_.extract(it));
    }
    it = next;
  }
  if (!absl::IsUnavailable(why)) {
    after.give_up = true;
  } else if (asked) {
    after.open_again = options_.retries->After(why, ++failures_);
    after.give_up = !after.open_again.has_value();
    opening_ = !after.give_up;
  }
  return after;
}

void StreamRequests::OnClosed(const absl::Status& why, bool* ended) {
  const absl::Status reason = AsLostConnection(why);
  const absl::Status told = absl::UnavailableError(absl::StrCat(
      "the stream to ", options_.address, " ended: ", reason.message(), "; open another"));
  AfterEnd after;
  {
    absl::MutexLock lock(&mutex_);
    *ended = true;
    stream_ = nullptr;
    opening_ = false;
    after = JudgeEnd(reason);
  }
  // Broken first: a caller that has an answer knows that no other call will be opened.
  if (after.give_up) {
    Break(told);
  }
  AnswerAll(std::move(after.exhausted), told);
  if (after.open_again.has_value()) {
    options_.waits->Wait(*after.open_again,
                         [self = shared_from_this()](const absl::Status& status) {
                           if (status.ok()) {
                             self->Open();
                           }
                         });
  }
  absl::MutexLock lock(&mutex_);
  --calls_;
}

void StreamRequests::Break(const absl::Status& why) {
  ById requests;
  std::shared_ptr<net::ClientStream> stream;
  {
    absl::MutexLock lock(&mutex_);
    if (broken_.ok()) {
      broken_ = why;
    }
    requests.swap(requests_);
    stream = stream_;
  }
  AnswerAll(std::move(requests), why);
  if (stream != nullptr) {
    stream->Cancel();
  }
}

void StreamRequests::Answer(uint64_t id, absl::StatusOr<ForwardResult> result) {
  Request request;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = requests_.find(id);
    if (found == requests_.end()) {
      return;
    }
    request = std::move(found->second);
    requests_.erase(found);
    ++answering_;
  }
  Finish(std::move(request), std::move(result));
  absl::MutexLock lock(&mutex_);
  --answering_;
}

void StreamRequests::AnswerAll(ById requests, const absl::Status& why) {
  {
    absl::MutexLock lock(&mutex_);
    ++answering_;
  }
  for (auto& [id, request] : requests) {
    Finish(std::move(request), why);
  }
  absl::MutexLock lock(&mutex_);
  --answering_;
}

void StreamRequests::Finish(Request request, absl::StatusOr<ForwardResult> result) {
  if (request.timer != 0) {
    options_.timers->Cancel(request.timer);
  }
  request.done(std::move(result));
}

void StreamRequests::AwaitClosed() {
  absl::MutexLock lock(&mutex_);
  const auto over = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return calls_ == 0 && answering_ == 0;
  };
  mutex_.Await(absl::Condition(&over));
}

size_t StreamRequests::size() const {
  absl::MutexLock lock(&mutex_);
  return requests_.size();
}

absl::Status StreamRequests::status() const {
  absl::MutexLock lock(&mutex_);
  return broken_;
}

}  // namespace expertmesh::client
