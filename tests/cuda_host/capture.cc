// The part of Queue that captures streams into graphs, and launches graphs.
#include <algorithm>
#include <memory>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "tests/cuda_host/queue.h"

namespace expertmesh::cuda_host {

void Queue::AddToCapture(cudaStream_t stream, Capture& capture, Work work) {
  std::vector<size_t>& ends = capture.ends[stream];
  capture.nodes.push_back({std::move(work), std::move(ends)});
  ends = {capture.nodes.size() - 1};
}

cudaError_t Queue::BeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  const absl::MutexLock lock(&mutex_);
  if (stream == nullptr) {
    return cudaErrorStreamCaptureUnsupported;
  }
  if (stream->capture != nullptr) {
    return cudaErrorInvalidValue;
  }
  stream->capture = std::make_shared<Capture>();
  stream->capture->origin = stream;
  stream->capture->mode = mode;
  stream->capture->thread = std::this_thread::get_id();
  stream->capture->ends[stream] = {};
  captures_.push_back(stream->capture);
  return cudaSuccess;
}

cudaError_t Queue::EndCapture(cudaStream_t stream, std::vector<Node>* nodes) {
  const absl::MutexLock lock(&mutex_);
  const std::shared_ptr<Capture> capture = StreamOf(stream).capture;
  if (capture == nullptr || capture->origin != stream) {
    return cudaErrorStreamCaptureUnmatched;
  }
  capture->ended = true;
  std::erase(captures_, capture);
  for (const auto& [member, ends] : capture->ends) {
    StreamOf(member).capture = nullptr;
  }
  if (!capture->valid) {
    return cudaErrorStreamCaptureInvalidated;
  }
  // Everything must come before the end of the stream that it began with.
  std::set<size_t> reached;
  std::vector<size_t> open = capture->ends[stream];
  while (!open.empty()) {
    const size_t next = open.back();
    open.pop_back();
    if (reached.insert(next).second) {
      const std::vector<size_t>& after = capture->nodes[next].after;
      open.insert(open.end(), after.begin(), after.end());
    }
  }
  if (reached.size() < capture->nodes.size()) {
    return cudaErrorStreamCaptureUnjoined;
  }
  *nodes = capture->nodes;
  return cudaSuccess;
}

cudaError_t Queue::LaunchGraph(CUgraphExec_st& graph, cudaStream_t stream, cudaError_t failure) {
  const absl::MutexLock lock(&mutex_);
  if (StreamOf(stream).capture != nullptr) {
    StreamOf(stream).capture->valid = false;
    return cudaErrorStreamCaptureUnsupported;
  }
  std::vector<std::shared_ptr<Work>> earlier;
  if (graph.last != nullptr) {
    earlier.push_back(graph.last);
  }
  const std::shared_ptr<Work> begin =
      AddLocked(stream, {.what = "the launch of a graph", .failure = failure}, earlier);
  std::vector<std::shared_ptr<Work>> made;
  std::vector<std::shared_ptr<Work>> all = {begin};
  for (const Node& node : graph.nodes) {
    if (node.work.is_host_function) {
      StartThreads();
    }
    std::vector<std::shared_ptr<Work>> after = {begin};
    for (const size_t before : node.after) {
      after.push_back(made[before]);
    }
    made.push_back(Append(node.work, std::move(after)));
    all.push_back(made.back());
  }
  graph.last = AddLocked(stream, {.what = "the end of a graph"}, std::move(all));
  return cudaSuccess;
}

bool Queue::Captures(cudaStream_t stream) {
  const absl::MutexLock lock(&mutex_);
  return StreamOf(stream).capture != nullptr;
}

bool Queue::BreaksCapture() {
  const absl::MutexLock lock(&mutex_);
  bool breaks = false;
  for (const std::shared_ptr<Capture>& capture : captures_) {
    const bool own = capture->thread == std::this_thread::get_id();
    if (capture->mode == cudaStreamCaptureModeGlobal ||
        (capture->mode == cudaStreamCaptureModeThreadLocal && own)) {
      capture->valid = false;
      breaks = true;
    }
  }
  return breaks;
}

bool Queue::BreaksCapture(cudaStream_t stream) {
  const absl::MutexLock lock(&mutex_);
  const std::shared_ptr<Capture>& capture = StreamOf(stream).capture;
  if (capture != nullptr) {
    capture->valid = false;
  }
  return capture != nullptr;
}

}  // namespace expertmesh::cuda_host
