// Included before all else where ThreadSanitizer is on (CMakeLists.txt). Protobuf's headers give
// map fields two members more when they see ThreadSanitizer. The system's libprotobuf was built
// without them, so its reflection would look for what is behind them in the wrong place.
#ifndef EXPERTMESH_PROTO_PROTOBUF_UNDER_TSAN_H_
#define EXPERTMESH_PROTO_PROTOBUF_UNDER_TSAN_H_

// The standard library's own headers must see it.
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#ifdef __SANITIZE_THREAD__
#undef __SANITIZE_THREAD__
#include <google/protobuf/map_field.h>
#define __SANITIZE_THREAD__ 1
#endif

#endif  // EXPERTMESH_PROTO_PROTOBUF_UNDER_TSAN_H_
