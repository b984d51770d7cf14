#include "common/net/byte_buffer.h"

#include <grpc/grpc.h>
#include <grpcpp/support/slice.h>

#include <atomic>
#include <memory>
#include <utility>
#include <vector>

#include "common/base/check.h"
#include "common/base/message_bytes.h"
#include "common/base/shared_pool.h"
#include "common/tensor/buffer_pool.h"

namespace expertmesh::net {
namespace {

// Below this a copy costs less than keeping an owner.
constexpr size_t kCopyBelow = 1024;
constexpr size_t kMostSlicesKept = 4096;

// Keeps the owner of bytes that gRPC is sending. The flag orders creation before destruction for
// race detectors, which cannot see the reference counts inside gRPC.
struct HeldOwner {
  void Recycle() {
    owner.reset();
    ready.store(false, std::memory_order_relaxed);
  }
  size_t MemoryBytes() const { return sizeof(*this); }

  std::shared_ptr<const void> owner;
  std::shared_ptr<HeldOwner> self;  // Until gRPC lets go.
  std::atomic<bool> ready{false};
};

// The slices of one received message.
struct ReceivedSlices {
  void Recycle() { slices.clear(); }
  size_t MemoryBytes() const { return sizeof(*this) + slices.capacity() * sizeof(grpc::Slice); }

  std::vector<grpc::Slice> slices;
};

// The whole process shares these pools, since frames go from one part of it to another. They are
// never destroyed. They hold next to no memory: lists of slices, not the bytes these refer to.
constexpr PoolLimits kLimits{.objects = 256, .bytes = 1 << 20};
SharedPool<HeldOwner>& HeldOwners() {
  static auto& pool = *new SharedPool<HeldOwner>(kLimits);
  return pool;
}
SharedPool<ReceivedSlices>& Received() {
  static auto& pool = *new SharedPool<ReceivedSlices>(kLimits);
  return pool;
}
BufferPool& SliceLists() {
  static auto& pool = *new BufferPool();
  return pool;
}

void ReleaseOwner(void* held) {
  auto* owner = static_cast<HeldOwner*>(held);
  EXPERTMESH_CHECK(owner->ready.load(std::memory_order_acquire));
  const std::shared_ptr<HeldOwner> last = std::move(owner->self);
}

grpc::Slice ToGrpcSlice(const Slice& slice) {
  std::shared_ptr<HeldOwner> taken = HeldOwners().Take();
  HeldOwner* const held = taken.get();
  held->owner = slice.owner();
  held->self = std::move(taken);
  held->ready.store(true, std::memory_order_release);
  // gRPC takes a mutable pointer and never writes to it.
  return grpc::Slice(const_cast<uint8_t*>(slice.data()), slice.size(), &ReleaseOwner, held);
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
  // Kept for its memory, unless that is much.
  thread_local std::vector<grpc::Slice> slices;
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
  grpc::ByteBuffer buffer(slices.data(), slices.size());
  slices.clear();
  if (slices.capacity() > kMostSlicesKept) {
    std::vector<grpc::Slice>().swap(slices);
  }
  return buffer;
}

Frame TakeFrame(grpc::ByteBuffer* buffer) {
  KeepGrpcInitialised();
  Frame frame;
  const std::shared_ptr<ReceivedSlices> received = Received().Take();
  if (buffer->Valid() && buffer->Dump(&received->slices).ok()) {
    frame.Reserve(received->slices.size(), &SliceLists());
    // One owner for all: small slices hold their bytes inside themselves, so it must be the vector.
    for (const grpc::Slice& slice : received->slices) {
      frame.Append(Slice(slice.begin(), slice.size(), received));
    }
  }
  buffer->Clear();
  message_bytes.received.fetch_add(frame.size(), std::memory_order_relaxed);
  return frame;
}

}  // namespace expertmesh::net
