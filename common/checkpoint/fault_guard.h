// Mapped bytes that are gone when somebody looks at them: an error, not the end of the process.
#ifndef EXPERTMESH_COMMON_CHECKPOINT_FAULT_GUARD_H_
#define EXPERTMESH_COMMON_CHECKPOINT_FAULT_GUARD_H_

#include <cstddef>
#include <cstdint>
#include <optional>

namespace expertmesh::checkpoint {

// While it lives, a SIGBUS for an address in a mapping does no harm: from that page to the end of
// the mapping zeros take the place of the file, whoever reads goes on with these, and the guard
// remembers it. So the reader asks the guard when it has read. Reading costs nothing more and
// needs no buffer.
//
// The first guard installs the process's handler of SIGBUS; what is no guard's goes to the handler
// that was there before. Thread-safe.
class FaultGuard {
 public:
  // [data, data + size) is mapped, and `data` the first byte of a page. The mapping must outlive
  // the guard, and nothing may read it when the guard is destroyed.
  FaultGuard(const void* data, size_t size);
  ~FaultGuard();
  FaultGuard(const FaultGuard&) = delete;
  FaultGuard& operator=(const FaultGuard&) = delete;

  // Where in the mapping the first page begins that had to be replaced; nothing when none had.
  std::optional<size_t> first_fault() const;

 private:
  // What the handler looks at.
  struct Slot;
  struct Handler;

  Slot* slot_;
};

}  // namespace expertmesh::checkpoint

#endif  // EXPERTMESH_COMMON_CHECKPOINT_FAULT_GUARD_H_
