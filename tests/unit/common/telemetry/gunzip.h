// Reads what was compressed.
#ifndef EXPERTMESH_TESTS_UNIT_COMMON_TELEMETRY_GUNZIP_H_
#define EXPERTMESH_TESTS_UNIT_COMMON_TELEMETRY_GUNZIP_H_

#include <gtest/gtest.h>
#include <zlib.h>

#include <string>

namespace expertmesh::telemetry {

// The text of `bytes`, which are gzip (its header, not zlib's) and nothing after it.
inline std::string Gunzip(std::string bytes) {
  constexpr size_t kMost = size_t{4} << 20;
  std::string text(kMost, '\0');
  z_stream stream = {};
  EXPECT_EQ(inflateInit2(&stream, MAX_WBITS + 16), Z_OK);
  stream.next_in = reinterpret_cast<Bytef*>(bytes.data());
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(text.data());
  stream.avail_out = static_cast<uInt>(text.size());
  EXPECT_EQ(inflate(&stream, Z_FINISH), Z_STREAM_END);
  EXPECT_EQ(stream.avail_in, 0u);
  text.resize(stream.total_out);
  inflateEnd(&stream);
  return text;
}

}  // namespace expertmesh::telemetry

#endif  // EXPERTMESH_TESTS_UNIT_COMMON_TELEMETRY_GUNZIP_H_
