// The handler of one stream, which may end while it works on a frame.
#ifndef EXPERTMESH_COMMON_NET_HANDLER_SLOT_H_
#define EXPERTMESH_COMMON_NET_HANDLER_SLOT_H_

#include <memory>
#include <utility>

#include "common/transport/transport.h"

namespace expertmesh::net {

// Guarded by its owner's mutex. Handlers that it returns are to be destroyed without that.
class HandlerSlot {
 public:
  // Gives it back when the slot is over already.
  std::unique_ptr<StreamHandler> Set(std::unique_ptr<StreamHandler> handler) {
    if (!over_) {
      handler_.swap(handler);
    }
    return handler;
  }

  // The handler, to give it a frame: until Leave(). Null when there is none.
  StreamHandler* Enter() {
    entered_ = !over_ && handler_ != nullptr;
    return entered_ ? handler_.get() : nullptr;
  }
  // The handler when it was to end meanwhile.
  std::unique_ptr<StreamHandler> Leave() {
    entered_ = false;
    return over_ ? std::move(handler_) : nullptr;
  }

  // No more frames; the handler, unless it works on one.
  std::unique_ptr<StreamHandler> End() {
    over_ = true;
    return entered_ ? nullptr : std::move(handler_);
  }
  bool over() const { return over_; }

 private:
  std::unique_ptr<StreamHandler> handler_;
  bool entered_ = false;
  bool over_ = false;
};

}  // namespace expertmesh::net

#endif  // EXPERTMESH_COMMON_NET_HANDLER_SLOT_H_
