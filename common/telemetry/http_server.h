// A small HTTP/1.1 server for what is read in a browser or by a scraper: metrics, health, a
// console. It answers GET and HEAD without a body, and nothing else.
#ifndef EXPERTMESH_COMMON_TELEMETRY_HTTP_SERVER_H_
#define EXPERTMESH_COMMON_TELEMETRY_HTTP_SERVER_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"

struct mg_context;
struct mg_connection;

namespace expertmesh::telemetry {

// Plain data.
struct HttpRequest {
  // Decoded, from "/" on; without the query.
  std::string path;
  // As it was sent, without "?".
  std::string query;
  // Headers, empty where there are none. Entity tags are without the "W/" of weak ones.
  std::string accept;
  std::string if_none_match;

  // Value of `name` in the query, decoded ("%20" and "+" are spaces); none when it is not there.
  std::optional<std::string> Parameter(absl::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
  // Beside those that every answer has.
  std::vector<std::pair<std::string, std::string>> headers;
};

// May be called by many threads at once, and may block for a while: each request has a thread.
using HttpHandler = std::function<HttpResponse(const HttpRequest& request)>;

// Thread-safe. Slow callers do not delay others: 64 are served at once, and one that neither sends
// nor reads for two seconds is let go. A request (its line and headers) has at most 16 KiB. Texts
// of more than 1 KiB are compressed for those who read gzip. Answers forbid a browser to load
// anything from elsewhere, to be framed, and to guess at types. Every server has /healthz, which
// answers "ok".
class HttpServer {
 public:
  // `address` is host:port; port 0 picks a free one.
  //   INVALID_ARGUMENT  not host:port.
  //   UNAVAILABLE       the address cannot be bound; the message names it.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const std::string& address);
  // Waits for running handlers.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // From now on `handler` answers `path`, or, where that ends in "/", all paths that begin so and
  // have no longer one of their own. What it uses must outlive the server. Replaces an earlier one.
  void Handle(std::string path, HttpHandler handler);

  int port() const { return port_; }

 private:
  HttpServer(std::string host, int port) : host_(std::move(host)), port_(port) {}

  static int OnRequest(mg_connection* connection);
  static int OnLog(const mg_connection* connection, const char* message);
  HttpResponse Answer(mg_connection* connection);
  HttpResponse NotFound(const std::string& path) const;
  std::shared_ptr<const HttpHandler> Find(const std::string& path) const;

  const std::string host_;
  int port_;
  mg_context* context_ = nullptr;
  mutable absl::Mutex mutex_;
  std::map<std::string, std::shared_ptr<const HttpHandler>> handlers_ ABSL_GUARDED_BY(mutex_);
  // What the library said last: why it did not start.
  std::string said_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace expertmesh::telemetry

#endif  // EXPERTMESH_COMMON_TELEMETRY_HTTP_SERVER_H_
