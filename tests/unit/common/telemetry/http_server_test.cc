#include "common/telemetry/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/unit/common/telemetry/gunzip.h"
#include "tests/unit/common/telemetry/http_get.h"

namespace expertmesh::telemetry {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class HttpServerTest : public testing::Test {
 protected:
  HttpServerTest() {
    auto started = HttpServer::Start("127.0.0.1:0");
    EXPECT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
  }

  int port() const { return server_->port(); }
  // Answers with the path and what the query says of "a".
  void Echo(const std::string& path) {
    server_->Handle(path, [path](const HttpRequest& request) {
      HttpResponse response;
      response.body = path + " got " + request.path + " a=" + request.Parameter("a").value_or("-");
      return response;
    });
  }

  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, EachPathHasItsHandler) {
  Echo("/");
  Echo("/traces/");
  Echo("/traces/slow/");
  Echo("/traces/search");
  EXPECT_EQ(BodyOf(Get(port(), "/")), "/ got / a=-");
  EXPECT_EQ(BodyOf(Get(port(), "/traces/1?a=b%20c+d&a=e")), "/traces/ got /traces/1 a=b c d");
  EXPECT_EQ(BodyOf(Get(port(), "/traces/search?b=1")), "/traces/search got /traces/search a=-");
  EXPECT_EQ(BodyOf(Get(port(), "/traces/slow/x/y?a=")), "/traces/slow/ got /traces/slow/x/y a=");
  EXPECT_THAT(Get(port(), "/traces"), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(Get(port(), "/other"), StartsWith("HTTP/1.1 404"));
  EXPECT_EQ(BodyOf(Get(port(), "/healthz")), "ok\n");
}

TEST_F(HttpServerTest, AQueryThatIsNotEncodedWellStandsForItself) {
  Echo("/a");
  EXPECT_EQ(BodyOf(Get(port(), "/a?a=50%+x%4")), "/a got /a a=50% x%4");
  EXPECT_EQ(BodyOf(Get(port(), "/a?a=%2B%25")), "/a got /a a=+%");
}

TEST_F(HttpServerTest, LongTextsAreCompressedForThoseWhoReadGzip) {
  const std::string text(1025, 'x');
  const auto serve = [this](const std::string& path, const std::string& type, size_t size) {
    server_->Handle(path, [type, size](const HttpRequest& request) {
      HttpResponse response;
      response.content_type = type;
      response.body = std::string(size, 'x');
      response.headers = {{"ETag", "\"tag\""}, {"Seen", request.if_none_match}};
      return response;
    });
  };
  serve("/metrics", "application/openmetrics-text; version=1.0.0", 1025);
  serve("/short", "text/plain", 1024);
  serve("/image", "image/png", 1025);
  const std::string gzip = "Accept-Encoding: gzip\r\n";
  const std::string answer = Get(port(), "/metrics", gzip + "If-None-Match: W/\"tag\"\r\n");
  EXPECT_EQ(Gunzip(BodyOf(answer)), text);
  EXPECT_THAT(answer, HasSubstr("\r\nContent-Encoding: gzip\r\n"));
  EXPECT_THAT(answer, HasSubstr("\r\nVary: Accept-Encoding\r\n"));
  EXPECT_THAT(answer, HasSubstr("\r\nETag: W/\"tag\"\r\nSeen: \"tag\"\r\n"));
  const std::string length =
      "\r\nContent-Length: " + std::to_string(BodyOf(answer).size()) + "\r\n";
  EXPECT_THAT(answer, HasSubstr(length));
  // Asked for the head alone, it says the same.
  EXPECT_THAT(Exchange(port(), "HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n" + gzip + "\r\n"),
              HasSubstr(length));
  for (const char* headers :
       {"", "Accept-Encoding: identity\r\n", "Accept-Encoding: gzip;q=0\r\n"}) {
    const std::string plain = Get(port(), "/metrics", headers);
    EXPECT_EQ(BodyOf(plain), text);
    EXPECT_THAT(plain, Not(HasSubstr("Content-Encoding")));
    EXPECT_THAT(plain, HasSubstr("\r\nVary: Accept-Encoding\r\n"));
    EXPECT_THAT(plain, HasSubstr("\r\nETag: \"tag\"\r\n"));
  }
  for (const char* path : {"/short", "/image"}) {
    EXPECT_THAT(Get(port(), path, gzip), Not(HasSubstr("Content-Encoding"))) << path;
  }
}

TEST_F(HttpServerTest, WhatIsNotThereSaysWhatIs) {
  Echo("/load.json");
  const std::string answer = Get(port(), "/<script>");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(BodyOf(answer), HasSubstr("\n  /healthz\n  /load.json\n"));
  EXPECT_THAT(answer, Not(HasSubstr("script>")));
}

TEST_F(HttpServerTest, OnlyGetAndHeadAreServed) {
  Echo("/page");
  const std::string head = Exchange(port(), "HEAD /page HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(head, StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(head, HasSubstr("Content-Length: 19\r\n"));
  EXPECT_THAT(head, EndsWith("\r\n\r\n"));
  for (const std::string method : {"POST", "PUT", "DELETE", "OPTIONS"}) {
    const std::string answer =
        Exchange(port(), method + " /page HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 405")) << method;
    EXPECT_THAT(answer, HasSubstr("Allow: GET, HEAD\r\n")) << method;
  }
  EXPECT_THAT(Exchange(port(), "GET /page HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"),
              StartsWith("HTTP/1.1 413"));
}

TEST_F(HttpServerTest, ABrowserLoadsNothingFromElsewhere) {
  const std::string answer = Get(port(), "/healthz");
  EXPECT_THAT(answer, HasSubstr("Content-Security-Policy: default-src 'none'; script-src 'self';"));
  EXPECT_THAT(answer, HasSubstr("X-Content-Type-Options: nosniff\r\n"));
  EXPECT_THAT(answer, HasSubstr("X-Frame-Options: DENY\r\n"));
  EXPECT_THAT(answer, HasSubstr("Referrer-Policy: no-referrer\r\n"));
}

TEST_F(HttpServerTest, ARequestIsBounded) {
  const std::string answer = Get(port(), "/healthz", "X: " + std::string(64 << 10, 'x') + "\r\n");
  EXPECT_THAT(answer, Not(StartsWith("HTTP/1.1 200")));
  EXPECT_EQ(BodyOf(Get(port(), "/healthz")), "ok\n");
}

TEST_F(HttpServerTest, AHandlerSetsHeadersAndNoMore) {
  server_->Handle("/page", [](const HttpRequest&) {
    HttpResponse response;
    response.status = 304;
    response.headers = {{"ETag", "\"1\""}, {"X-Bad", "a\r\nX-Injected: 1"}};
    return response;
  });
  const std::string answer = Get(port(), "/page");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 304"));
  EXPECT_THAT(answer, HasSubstr("ETag: \"1\"\r\n"));
  EXPECT_THAT(answer, Not(HasSubstr("X-Injected")));
}

TEST_F(HttpServerTest, AHandlerThatThrowsFailsOneRequest) {
  server_->Handle(
      "/bad", [](const HttpRequest&) -> HttpResponse { throw std::runtime_error("no memory"); });
  EXPECT_THAT(Get(port(), "/bad"), StartsWith("HTTP/1.1 500"));
  EXPECT_EQ(BodyOf(Get(port(), "/healthz")), "ok\n");
}

TEST_F(HttpServerTest, ManyWhoAreSlowBlockNoOther) {
  std::vector<int> slow;
  for (int i = 0; i < 60; ++i) {
    slow.push_back(ConnectAndSend(port(), i % 2 == 0 ? "" : "GET /hea"));
  }
  EXPECT_EQ(BodyOf(Get(port(), "/healthz")), "ok\n");
  char none = 0;
  // They are let go.
  EXPECT_EQ(recv(slow.front(), &none, 1, 0), 0);
  for (const int connection : slow) {
    close(connection);
  }
}

TEST_F(HttpServerTest, StopsWhileConnectionsAreOpen) {
  const int open = ConnectAndSend(port(), "");
  server_
      .reset();  // What no thread had taken yet the library may leave open, until the process ends.
  close(open);
}

}  // namespace
}  // namespace expertmesh::telemetry
