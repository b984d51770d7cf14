#include "common/net/byte_buffer.h"

#include <grpc/grpc.h>
#include <grpcpp/support/slice.h>

#include <atomic>
#include <memory>
#include <utility>
#include <vector>

#include "common/base/check.h"
#include "common/base/message_bytes.h"

namespace expertmesh {
namespace {

// Below this a copy costs less than keeping an owner.
constexpr size_t kCopyBelow = 1024;

// Keeps the owner of bytes that gRPC is sending. The flag orders creation before destruction for
// race detectors, which cannot see the reference counts inside gRPC.
struct HeldOwner {
  std::shared_ptr<const void> owner;
  std::atomic<bool> ready{false};
};

void ReleaseOwner(void* held) {
  auto* owner = static_cast<HeldOwner*>(held);
  EXPERTMESH_CHECK(owner->ready.load(std::memory_order_acquire));
  delete owner;
}

grpc::Slice ToGrpcSlice(const Slice& slice) {
  auto held = std::make_unique<HeldOwner>();
  held->owner = slice.owner();
  held->ready.store(true, std::memory_order_release);
  // gRPC takes a mutable pointer and never writes to it.
  return grpc::Slice(const_cast<uint8_t*>(slice.data()), slice.size(), &ReleaseOwner,
                     held.release());
}

// `slice` as one more reference to what `other`, not inlined, already holds the owner of.
grpc::Slice ShareOwner(const Slice& slice, const grpc::Slice& other) {
  grpc_slice shared = other.c_slice();
  shared.data.refcounted.bytes = const_cast<uint8_t*>(slice.data());
  shared.data.refcounted.length = slice.size();
  return grpc::Slice(shared, grpc::Slice::STEAL_REF);
}

// Frames may outlive every channel and server, and giving back their bytes needs a live gRPC.
void KeepGrpcInitialised() {
  static const bool initialised = [] {
    grpc_init();
    return true;
  }();
  static_cast<void>(initialised);
}

}  // namespace

grpc::ByteBuffer ToByteBuffer(const Frame& frame) {
  message_bytes.sent.fetch_add(frame.size(), std::memory_order_relaxed);
  std::vector<grpc::Slice> slices;
  slices.reserve(frame.slices().size() + 1);
  const Slice* before = nullptr;  // Made into slices.back() without a copy.
  for (const Slice& slice : frame.slices()) {
    if (slice.size() < kCopyBelow) {
      slices.emplace_back(slice.data(), slice.size());
      before = nullptr;
    } else if (before != nullptr && before->owner() == slice.owner()) {
      slices.push_back(ShareOwner(slice, slices.back()));
    } else {
      slices.push_back(ToGrpcSlice(slice));
      before = &slice;
    }
  }
  if (slices.empty()) {
    slices.emplace_back();
  }
  return grpc::ByteBuffer(slices.data(), slices.size());
}

Frame TakeFrame(grpc::ByteBuffer* buffer) {
  KeepGrpcInitialised();
  Frame frame;
  auto slices = std::make_shared<std::vector<grpc::Slice>>();
  if (buffer->Valid() && buffer->Dump(slices.get()).ok()) {
    // One owner for all: small slices hold their bytes inside themselves, so it must be the vector.
    for (const grpc::Slice& slice : *slices) {
      frame.Append(Slice(slice.begin(), slice.size(), slices));
    }
  }
  buffer->Clear();
  message_bytes.received.fetch_add(frame.size(), std::memory_order_relaxed);
  return frame;
}

}  // namespace expertmesh
