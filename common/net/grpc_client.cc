#include "common/net/grpc_client.h"

#include <grpcpp/client_context.h>
#include <grpcpp/generic/generic_stub.h>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/clock.h"
#include "common/net/byte_buffer.h"
#include "common/net/grpc_status.h"
#include "common/net/send_queue.h"

namespace expertmesh::net {
namespace {

void Prepare(const CallOptions& options, grpc::ClientContext* context) {
  if (options.deadline != absl::InfiniteFuture()) {
    const absl::Duration left = options.deadline - Clock::Real()->Now();
    context->set_deadline(
        gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                     gpr_time_from_nanos(absl::ToInt64Nanoseconds(left), GPR_TIMESPAN)));
  }
  for (const auto& [key, value] : options.metadata) {
    context->AddMetadata(key, value);
  }
  context->set_wait_for_ready(options.wait_for_ready);
}

class UnaryClientCall final : public LiveCall,
                              public ClientCall,
                              public std::enable_shared_from_this<UnaryClientCall> {
 public:
  using Done = std::function<void(absl::StatusOr<Frame>)>;

  UnaryClientCall(GrpcRuntime* runtime, std::string method, Done done)
      : runtime_(runtime), method_(std::move(method)), done_(std::move(done)) {}

  void Start(const std::shared_ptr<grpc::Channel>& channel, const Frame& request,
             const CallOptions& options) {
    if (!runtime_->calls().Add(shared_from_this())) {
      done_(absl::CancelledError("the client is shutting down"));
      return;
    }
    Prepare(options, &context_);
    if (options.gzip) {
      context_.set_compression_algorithm(GRPC_COMPRESS_GZIP);
    }
    grpc::GenericStub stub(channel);
    reader_ =
        stub.PrepareUnaryCall(&context_, method_, ToByteBuffer(request), runtime_->NextQueue());
    reader_->StartCall();
    reader_->Finish(&response_, &status_, finish_tag_.Arm(shared_from_this()));
  }

  void Cancel() override { context_.TryCancel(); }
  void Abort(const absl::Status&) override { Cancel(); }
  void Drain(const absl::Status&) override { Cancel(); }

 private:
  void OnFinished(bool) {
    const Done done = std::exchange(done_, nullptr);
    if (status_.ok()) {
      done(TakeFrame(&response_));
    } else {
      done(FromGrpc(status_));
    }
    runtime_->calls().Remove(this);
  }

  GrpcRuntime* const runtime_;
  const std::string method_;
  Done done_;
  grpc::ClientContext context_;
  grpc::Status status_;
  grpc::ByteBuffer response_;
  std::unique_ptr<grpc::ClientAsyncResponseReader<grpc::ByteBuffer>> reader_;
  OpTag<UnaryClientCall> finish_tag_{&UnaryClientCall::OnFinished};
};

// Reading and sending go on side by side. Reading: initial metadata, then frames, with one read
// under way unless it is paused, and when there are no more, the status (Finish). Sending: one
// operation at a time, chosen by Advance(), none after `over_`. The stream is done when Finish has
// come back and no operation is under way.
class StreamClientCall final : public LiveCall,
                               public ClientStream,
                               public std::enable_shared_from_this<StreamClientCall> {
 public:
  StreamClientCall(GrpcRuntime* runtime, std::string method, const GrpcOptions& grpc_options,
                   const CallOptions& options, StreamCallbacks callbacks)
      : runtime_(runtime),
        method_(std::move(method)),
        max_message_bytes_(grpc_options.max_message_bytes),
        send_queue_bytes_(options.send_queue_bytes),
        callbacks_(std::move(callbacks)) {}

  void Start(const std::shared_ptr<grpc::Channel>& channel, const CallOptions& options) {
    if (!runtime_->calls().Add(shared_from_this())) {
      {
        absl::MutexLock lock(&mutex_);
        over_ = true;
      }
      callbacks_.on_closed(absl::CancelledError("the client is shutting down"));
      return;
    }
    Prepare(options, &context_);
    grpc::GenericStub stub(channel);
    stream_ = stub.PrepareCall(&context_, method_, runtime_->NextQueue());
    {
      absl::MutexLock lock(&mutex_);
      pending_ = 1;
    }
    stream_->StartCall(start_tag_.Arm(shared_from_this()));
  }

  absl::Status Send(Frame frame) override {
    if (frame.size() > max_message_bytes_) {
      return absl::InvalidArgumentError(
          absl::StrCat("the frame has ", frame.size(), " bytes, the limit is ", max_message_bytes_,
                       " (max_message_bytes of this client); send less at once"));
    }
    bool resumes = false;
    {
      absl::MutexLock lock(&mutex_);
      if (over_) {
        return absl::UnavailableError(absl::StrCat("the stream ", method_, " has ended"));
      }
      if (close_wanted_) {
        return absl::FailedPreconditionError("CloseSend was called; open another stream");
      }
      if (queue_.bytes() >= send_queue_bytes_) {
        return absl::ResourceExhaustedError(absl::StrCat("the window of ", send_queue_bytes_,
                                                         " bytes is full with ", queue_.bytes(),
                                                         " bytes queued; wait or send elsewhere"));
      }
      queue_.Push(std::move(frame));
      resumes = EndPause();
    }
    Advance();
    if (resumes) {
      Read();
    }
    return absl::OkStatus();
  }

  void CloseSend() override {
    {
      absl::MutexLock lock(&mutex_);
      close_wanted_ = true;
    }
    Advance();
    ResumeReading();
  }

  size_t QueuedBytes() const override {
    absl::MutexLock lock(&mutex_);
    return queue_.bytes();
  }

  void PauseReading() override {
    absl::MutexLock lock(&mutex_);
    pause_wanted_ = true;
  }

  void ResumeReading() override {
    {
      absl::MutexLock lock(&mutex_);
      if (!EndPause()) {
        return;
      }
    }
    Read();
  }

  void Cancel() override {
    {
      absl::MutexLock lock(&mutex_);
      over_ = true;
    }
    context_.TryCancel();
    ResumeReading();  // Which tells that it has ended.
  }
  void Abort(const absl::Status&) override { Cancel(); }
  void Drain(const absl::Status&) override { Cancel(); }

 private:
  void OnStarted(bool ok) {
    if (!ok) {
      Finish();
      OperationDone();
      return;
    }
    {
      absl::MutexLock lock(&mutex_);
      started_ = true;
      ++pending_;
    }
    stream_->ReadInitialMetadata(read_tag_.Arm(shared_from_this()));
    OperationDone();
  }

  void OnRead(bool ok) {
    if (!ok) {
      Finish();
    } else {
      if (!opened_) {
        opened_ = true;
        if (callbacks_.on_open) {
          callbacks_.on_open();
        }
      } else {
        callbacks_.on_frame(TakeFrame(&received_));
      }
      ReadNext();
    }
    OperationDone();
  }

  void ReadNext() {
    {
      absl::MutexLock lock(&mutex_);
      paused_ = pause_wanted_ && !over_;
      if (paused_) {
        return;
      }
      ++pending_;
    }
    Read();
  }

  void Read() { stream_->Read(&received_, read_tag_.Arm(shared_from_this())); }

  // True when the caller has to Read(), which counts as under way already.
  bool EndPause() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    pause_wanted_ = false;
    pending_ += paused_ ? 1 : 0;
    return std::exchange(paused_, false);
  }

  void OnWritten(bool ok) {
    RingQueue<Frame> dropped;
    {
      absl::MutexLock lock(&mutex_);
      sending_ = false;
      queue_.Written();
      if (!ok) {  // The stream is broken; reading will end and tell why.
        over_ = true;
        dropped = queue_.Clear();
      }
    }
    if (!ok) {
      ResumeReading();  // A pause may have begun since.
    }
    OperationDone();
  }

  void Finish() {
    RingQueue<Frame> dropped;
    {
      absl::MutexLock lock(&mutex_);
      over_ = true;
      dropped = queue_.Clear();
      ++pending_;
    }
    stream_->Finish(&status_, finish_tag_.Arm(shared_from_this()));
  }

  void OnFinished(bool) {
    const StreamCallbacks callbacks = std::exchange(callbacks_, {});
    callbacks.on_closed(FromGrpc(status_));
    {
      absl::MutexLock lock(&mutex_);
      finished_ = true;
    }
    OperationDone();
  }

  void OperationDone() {
    Advance();
    {
      absl::MutexLock lock(&mutex_);
      --pending_;
      if (pending_ > 0 || !finished_) {
        return;
      }
    }
    runtime_->calls().Remove(this);
  }

  // Starts the next sending operation if there is one and none is under way.
  void Advance() {
    SendQueue::Next next;
    bool close = false;
    {
      absl::MutexLock lock(&mutex_);
      if (!started_ || sending_ || over_ || closed_) {
        return;
      }
      if (!queue_.empty()) {
        next = queue_.Pop();
      } else if (close_wanted_) {
        close = closed_ = true;
      } else {
        return;
      }
      sending_ = true;
      ++pending_;
    }
    if (close) {
      stream_->WritesDone(write_tag_.Arm(shared_from_this()));
    } else {
      stream_->Write(ToByteBuffer(next.frame), next.options, write_tag_.Arm(shared_from_this()));
    }
  }

  GrpcRuntime* const runtime_;
  const std::string method_;
  const size_t max_message_bytes_;
  const size_t send_queue_bytes_;
  // Used by the network thread of this stream only.
  StreamCallbacks callbacks_;
  bool opened_ = false;
  grpc::Status status_;
  grpc::ByteBuffer received_;
  // Operations run outside of mutex_; gRPC orders them.
  grpc::ClientContext context_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream_;
  OpTag<StreamClientCall> start_tag_{&StreamClientCall::OnStarted};
  OpTag<StreamClientCall> read_tag_{&StreamClientCall::OnRead};
  OpTag<StreamClientCall> write_tag_{&StreamClientCall::OnWritten};
  OpTag<StreamClientCall> finish_tag_{&StreamClientCall::OnFinished};

  mutable absl::Mutex mutex_;
  SendQueue queue_ ABSL_GUARDED_BY(mutex_);
  bool started_ ABSL_GUARDED_BY(mutex_) = false;
  bool sending_ ABSL_GUARDED_BY(mutex_) = false;
  bool close_wanted_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  bool pause_wanted_ ABSL_GUARDED_BY(mutex_) = false;
  bool paused_ ABSL_GUARDED_BY(mutex_) = false;  // No read is under way; the next one may begin.
  int pending_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace

GrpcClient::GrpcClient(GrpcRuntime* runtime, const std::string& target, const GrpcOptions& options)
    : runtime_(runtime), options_(options), channel_(MakeChannel(target, options)) {}

std::shared_ptr<ClientCall> GrpcClient::UnaryCall(const std::string& method, const Frame& request,
                                                  const CallOptions& call_options,
                                                  std::function<void(absl::StatusOr<Frame>)> done) {
  auto call = std::make_shared<UnaryClientCall>(runtime_, method, std::move(done));
  call->Start(channel_, request, call_options);
  return call;
}

std::shared_ptr<ClientStream> GrpcClient::OpenStream(const std::string& method,
                                                     const CallOptions& call_options,
                                                     StreamCallbacks callbacks) {
  auto stream = std::make_shared<StreamClientCall>(runtime_, method, options_, call_options,
                                                   std::move(callbacks));
  stream->Start(channel_, call_options);
  return stream;
}

}  // namespace expertmesh::net
