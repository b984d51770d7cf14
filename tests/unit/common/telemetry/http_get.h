// HTTP requests to a server on loopback, written by hand.
#ifndef EXPERTMESH_TESTS_UNIT_COMMON_TELEMETRY_HTTP_GET_H_
#define EXPERTMESH_TESTS_UNIT_COMMON_TELEMETRY_HTTP_GET_H_

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

namespace expertmesh::telemetry {

// A connection to this port of loopback on which `text` was sent.
inline int ConnectAndSend(int port, const std::string& text) {
  const int connection = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(connection, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(send(connection, text.data(), text.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(text.size()));
  return connection;
}

// The whole answer to `text`.
inline std::string Exchange(int port, const std::string& text) {
  const int connection = ConnectAndSend(port, text);
  std::string answer;
  char buffer[4096];
  for (ssize_t count = 0; (count = read(connection, buffer, sizeof(buffer))) > 0;) {
    answer.append(buffer, static_cast<size_t>(count));
  }
  close(connection);
  return answer;
}

// The whole answer to GET `target`; `headers` end with a line break each.
inline std::string Get(int port, const std::string& target, const std::string& headers = "") {
  return Exchange(port, "GET " + target + " HTTP/1.1\r\nHost: localhost\r\n" + headers + "\r\n");
}

inline std::string BodyOf(const std::string& answer) {
  return answer.substr(answer.find("\r\n\r\n") + 4);
}

}  // namespace expertmesh::telemetry

#endif  // EXPERTMESH_TESTS_UNIT_COMMON_TELEMETRY_HTTP_GET_H_
