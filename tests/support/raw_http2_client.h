// A client that speaks HTTP/2 frame by frame and keeps what a server really sends: what libraries
// of gRPC forgive or hide.
#ifndef EXPERTMESH_TESTS_SUPPORT_RAW_HTTP2_CLIENT_H_
#define EXPERTMESH_TESTS_SUPPORT_RAW_HTTP2_CLIENT_H_

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "tests/support/too_long.h"

namespace expertmesh::net {

// One connection to a port of loopback. Not thread-safe.
class RawHttp2Client {
 public:
  using Metadata = std::vector<std::pair<std::string, std::string>>;

  // What came for one stream.
  struct Heard {
    int headers = 0;
    int ends = 0;  // Frames with END_STREAM.
    int resets = 0;
  };

  explicit RawHttp2Client(int port) : socket_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(port));
    EXPECT_EQ(connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    Write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    WriteFrame(kSettings, 0, 0, "");
  }
  ~RawHttp2Client() { close(socket_); }
  RawHttp2Client(const RawHttp2Client&) = delete;
  RawHttp2Client& operator=(const RawHttp2Client&) = delete;

  // Calls `method` with one message and closes its side. Returns the stream.
  uint32_t Call(const std::string& method, const std::string& message, const Metadata& metadata) {
    const uint32_t stream = next_stream_;
    next_stream_ += 2;
    std::string block;
    const Metadata all = {{":method", "POST"}, {":scheme", "http"},
                          {":path", method},   {":authority", "localhost"},
                          {"te", "trailers"},  {"content-type", "application/grpc"}};
    for (const auto& [name, value] : all) {
      AppendField(name, value, &block);
    }
    for (const auto& [name, value] : metadata) {
      AppendField(name, value, &block);
    }
    for (size_t at = 0; at == 0 || at < block.size(); at += kLargestFrame) {
      const bool last = at + kLargestFrame >= block.size();
      WriteFrame(at == 0 ? kHeaders : kContinuation, last ? kEndHeaders : 0, stream,
                 block.substr(at, kLargestFrame));
    }
    const uint32_t size = htonl(static_cast<uint32_t>(message.size()));
    std::string body(1, '\0');
    body.append(reinterpret_cast<const char*>(&size), sizeof(size));
    WriteFrame(kData, kEndStream, stream, body + message);
    return stream;
  }

  // Reads until the stream has ended; false when the connection is closed first.
  bool AwaitEnd(uint32_t stream) {
    return ReadUntil([&] { return heard_[stream].ends + heard_[stream].resets > 0; });
  }
  // Reads all that the server had sent when it got this; false when it closes the connection first.
  bool Catch() {
    const int before = pongs_;
    WriteFrame(kPing, 0, 0, std::string(8, 'p'));
    return ReadUntil([&] { return pongs_ > before; });
  }

  const Heard& heard(uint32_t stream) { return heard_[stream]; }

 private:
  enum Type : uint8_t {
    kData = 0,
    kHeaders = 1,
    kReset = 3,
    kSettings = 4,
    kPing = 6,
    kContinuation = 9
  };
  enum Flag : uint8_t { kEndStream = 1, kAck = 1, kEndHeaders = 4 };
  static constexpr size_t kLargestFrame = 16384;
  static constexpr size_t kFrameHeader = 9;

  // HPACK: a field that no table holds, without Huffman codes (RFC 7541, 6.2.3 and 5.1).
  static void AppendField(const std::string& name, const std::string& value, std::string* block) {
    block->push_back(0x10);
    for (const std::string& text : {name, value}) {
      size_t size = text.size();
      block->push_back(static_cast<char>(std::min<size_t>(size, 127)));
      if (size >= 127) {
        for (size -= 127; size >= 128; size /= 128) {
          block->push_back(static_cast<char>(size % 128 + 128));
        }
        block->push_back(static_cast<char>(size));
      }
      block->append(text);
    }
  }

  void Write(const std::string& bytes) {
    for (size_t at = 0; at < bytes.size();) {
      const ssize_t sent = send(socket_, bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
      if (sent <= 0) {
        return;  // Closed: reading finds that out.
      }
      at += static_cast<size_t>(sent);
    }
  }

  void WriteFrame(uint8_t type, uint8_t flags, uint32_t stream, const std::string& payload) {
    const uint32_t size = htonl(static_cast<uint32_t>(payload.size()) << 8);
    const uint32_t id = htonl(stream);
    std::string frame(reinterpret_cast<const char*>(&size), 3);
    frame.push_back(static_cast<char>(type));
    frame.push_back(static_cast<char>(flags));
    frame.append(reinterpret_cast<const char*>(&id), sizeof(id));
    Write(frame + payload);
  }

  template <typename Reached>
  bool ReadUntil(const Reached& reached) {
    while (!reached()) {
      std::string header;
      std::string payload;
      if (!Read(kFrameHeader, &header)) {
        return false;
      }
      const auto byte = [&header](size_t at) { return static_cast<uint8_t>(header[at]); };
      if (!Read(size_t{byte(0)} << 16 | size_t{byte(1)} << 8 | byte(2), &payload)) {
        return false;
      }
      OnFrame(byte(3), byte(4),
              uint32_t{byte(5)} << 24 | uint32_t{byte(6)} << 16 | uint32_t{byte(7)} << 8 | byte(8),
              payload);
    }
    return true;
  }

  void OnFrame(uint8_t type, uint8_t flags, uint32_t stream, const std::string& payload) {
    if (type == kSettings && (flags & kAck) == 0) {
      WriteFrame(kSettings, kAck, 0, "");
    } else if (type == kPing && (flags & kAck) != 0) {
      ++pongs_;
    } else if (type == kPing) {
      WriteFrame(kPing, kAck, 0, payload);
    } else if (type == kReset) {
      ++heard_[stream].resets;
    } else if (type == kData || type == kHeaders) {
      heard_[stream].headers += type == kHeaders ? 1 : 0;
      heard_[stream].ends += (flags & kEndStream) != 0 ? 1 : 0;
    }
  }

  // False when the connection is closed, or nothing comes for too long.
  bool Read(size_t size, std::string* bytes) {
    bytes->resize(size);
    for (size_t at = 0; at < size;) {
      pollfd readable = {socket_, POLLIN, 0};
      if (poll(&readable, 1, static_cast<int>(absl::ToInt64Milliseconds(kTooLong))) <= 0) {
        ADD_FAILURE() << "the server sends nothing";
        return false;
      }
      const ssize_t got = recv(socket_, bytes->data() + at, size - at, 0);
      if (got <= 0) {
        return false;
      }
      at += static_cast<size_t>(got);
    }
    return true;
  }

  const int socket_;
  uint32_t next_stream_ = 1;
  int pongs_ = 0;
  std::map<uint32_t, Heard> heard_;
};

}  // namespace expertmesh::net

#endif  // EXPERTMESH_TESTS_SUPPORT_RAW_HTTP2_CLIENT_H_
