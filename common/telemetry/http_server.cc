#include "common/telemetry/http_server.h"

#include <civetweb.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <exception>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "common/base/percent.h"
#include "common/telemetry/gzip.h"

namespace expertmesh::telemetry {
namespace {

// A connection holds a thread from its first byte to its last, or until it has sent or read nothing
// for so long. Even with five times as many slow ones the next is served within the 10 s that
// Prometheus waits.
constexpr char kThreads[] = "64";
constexpr char kPatienceMs[] = "2000";
constexpr char kMostRequestBytes[] = "16384";

// Everything that a page needs comes from this server; no other page frames it, and what a browser
// keeps of it is not shown as if it were news.
constexpr char kHeadersOfAll[] =
    "Cache-Control: no-cache\r\n"
    "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'\r\n"
    "Cross-Origin-Resource-Policy: same-origin\r\n"
    "Referrer-Policy: no-referrer\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "X-Frame-Options: DENY\r\n";

// A name or value of a query. What is no encoding stands for itself.
std::string Unescaped(absl::string_view text) {
  const std::string spaced = absl::StrReplaceAll(text, {{"+", " "}});
  return PercentDecoded(spaced).value_or(spaced);
}

std::string HeaderOf(const mg_connection* connection, const char* name) {
  const char* const value = mg_get_header(connection, name);
  return value == nullptr ? "" : value;
}

HttpResponse Refused(int status, const std::string& why) {
  HttpResponse response;
  response.status = status;
  response.body = why + "\n";
  return response;
}

// What belongs in a line of a header stays there.
bool IsHeaderText(absl::string_view text) {
  return text.find_first_of(absl::string_view("\r\n\0", 3)) == absl::string_view::npos;
}

// Not worth the time below.
constexpr size_t kLeastToCompress = 1024;

bool IsText(absl::string_view content_type) {
  return absl::StartsWith(content_type, "text/") || absl::StrContains(content_type, "json") ||
         absl::StrContains(content_type, "javascript") || absl::StrContains(content_type, "xml") ||
         absl::StrContains(content_type, "openmetrics-text");
}

// Compresses a long text for those who read that.
void Encode(const std::string& accept_encoding, HttpResponse* response) {
  if (response->body.size() <= kLeastToCompress || !IsText(response->content_type)) {
    return;
  }
  response->headers.emplace_back("Vary", "Accept-Encoding");
  if (!AcceptsGzip(accept_encoding)) {
    return;
  }
  std::optional<std::string> shorter = Gzip(response->body);
  if (!shorter.has_value()) {
    return;
  }
  response->body = *std::move(shorter);
  response->headers.emplace_back("Content-Encoding", "gzip");
  for (auto& [name, value] : response->headers) {
    // It names the text, and no longer these bytes.
    if (absl::EqualsIgnoreCase(name, "ETag") && absl::StartsWith(value, "\"")) {
      value = "W/" + value;
    }
  }
}

void Write(mg_connection* connection, const HttpResponse& response, bool with_body) {
  std::string head = absl::StrCat(
      "HTTP/1.1 ", response.status, " ", mg_get_response_code_text(connection, response.status),
      "\r\nContent-Type: ", response.content_type, "\r\nContent-Length: ", response.body.size(),
      "\r\nConnection: close\r\n", kHeadersOfAll);
  for (const auto& [name, value] : response.headers) {
    if (IsHeaderText(name) && IsHeaderText(value)) {
      absl::StrAppend(&head, name, ": ", value, "\r\n");
    }
  }
  head += "\r\n";
  if (with_body) {
    head += response.body;
  }
  mg_write(connection, head.data(), head.size());
}

// Opens a connection and closes it again.
void Knock(const std::string& host, int port) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  // What listens on every address ("0.0.0.0") is reached under it too.
  if (getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) {
    return;
  }
  const int file = socket(found->ai_family, found->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (file >= 0) {
    (void)connect(file, found->ai_addr, found->ai_addrlen);
    close(file);
  }
  freeaddrinfo(found);
}

}  // namespace

std::optional<std::string> HttpRequest::Parameter(absl::string_view name) const {
  for (const absl::string_view pair : absl::StrSplit(query, '&')) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(pair, absl::MaxSplits('=', 1));
    if (!pair.empty() && Unescaped(parts.first) == name) {
      return Unescaped(parts.second);
    }
  }
  return std::nullopt;
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const std::string& address) {
  const size_t colon = address.rfind(':');
  int port = 0;
  if (colon == std::string::npos || colon == 0 ||
      !absl::SimpleAtoi(address.substr(colon + 1), &port) || port < 0 || port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("metrics address '", address, "' is not host:port, for example 0.0.0.0:9464"));
  }
  const absl::string_view host =
      absl::StripPrefix(absl::StripSuffix(absl::string_view(address).substr(0, colon), "]"), "[");
  std::unique_ptr<HttpServer> server(new HttpServer(std::string(host), port));
  server->Handle("/healthz", [](const HttpRequest&) {
    HttpResponse response;
    response.body = "ok\n";
    return response;
  });
  mg_callbacks callbacks = {};
  callbacks.begin_request = OnRequest;
  callbacks.log_message = OnLog;
  const char* options[] = {"listening_ports",  address.c_str(),      "num_threads",
                           kThreads,           "request_timeout_ms", kPatienceMs,
                           "max_request_size", kMostRequestBytes,    nullptr};
  server->context_ = mg_start(&callbacks, server.get(), options);
  if (server->context_ == nullptr) {
    const absl::MutexLock lock(&server->mutex_);
    return absl::UnavailableError(
        absl::StrCat("cannot serve metrics on ", address, ": ",
                     server->said_.empty() ? "the port cannot be bound" : server->said_,
                     "; choose a free port"));
  }
  mg_server_port bound[1] = {};
  if (mg_get_server_ports(server->context_, 1, bound) > 0) {
    server->port_ = bound[0].port;
  }
  return server;
}

HttpServer::~HttpServer() {
  if (context_ == nullptr) {
    return;
  }
  // The HTTP library looks every two seconds whether it is to stop, and whenever someone connects.
  absl::Notification stopped;
  std::thread knocking([&] {
    while (!stopped.WaitForNotificationWithTimeout(absl::Milliseconds(10))) {
      Knock(host_, port_);
    }
  });
  mg_stop(context_);
  stopped.Notify();
  knocking.join();
}

void HttpServer::Handle(std::string path, HttpHandler handler) {
  auto shared = std::make_shared<const HttpHandler>(std::move(handler));
  const absl::MutexLock lock(&mutex_);
  handlers_[std::move(path)] = std::move(shared);
}

std::shared_ptr<const HttpHandler> HttpServer::Find(const std::string& path) const {
  const absl::MutexLock lock(&mutex_);
  if (const auto exact = handlers_.find(path); exact != handlers_.end()) {
    return exact->second;
  }
  // "/a/b/c" is looked for as "/a/b/", then "/a/". "/" alone is a page, and answers for no other.
  for (size_t slash = path.rfind('/'); slash != std::string::npos && slash > 0;
       slash = path.rfind('/', slash - 1)) {
    if (const auto above = handlers_.find(path.substr(0, slash + 1)); above != handlers_.end()) {
      return above->second;
    }
  }
  return nullptr;
}

HttpResponse HttpServer::NotFound(const std::string& path) const {
  // Not the path itself: it is the caller's text.
  std::string why = path == "/" ? "Nothing is here. There is:" : "Not found. There is:";
  const absl::MutexLock lock(&mutex_);
  for (const auto& [known, handler] : handlers_) {
    absl::StrAppend(&why, "\n  ", known);
  }
  return Refused(404, why);
}

HttpResponse HttpServer::Answer(mg_connection* connection) {
  const mg_request_info* const info = mg_get_request_info(connection);
  const absl::string_view method = info->request_method;
  if (method != "GET" && method != "HEAD") {
    HttpResponse refused = Refused(405, "Only GET and HEAD are served.");
    refused.headers = {{"Allow", "GET, HEAD"}};
    return refused;
  }
  if (info->content_length > 0 || mg_get_header(connection, "Transfer-Encoding") != nullptr) {
    return Refused(413, "A request has no body here.");
  }
  HttpRequest request;
  request.path = info->local_uri == nullptr ? "" : info->local_uri;
  request.query = info->query_string == nullptr ? "" : info->query_string;
  request.accept = HeaderOf(connection, "Accept");
  // Weak or not makes no difference here (RFC 9110, 13.1.2).
  request.if_none_match =
      absl::StrReplaceAll(HeaderOf(connection, "If-None-Match"), {{"W/\"", "\""}});
  const std::shared_ptr<const HttpHandler> handler = Find(request.path);
  if (handler == nullptr) {
    return NotFound(request.path);
  }
  try {
    return (*handler)(request);
  } catch (const std::exception& error) {  // The library's border: it is C.
    return Refused(500, absl::StrCat("It failed: ", error.what()));
  }
}

int HttpServer::OnRequest(mg_connection* connection) {
  auto* const server = static_cast<HttpServer*>(mg_get_user_data(mg_get_context(connection)));
  HttpResponse response = server->Answer(connection);
  Encode(HeaderOf(connection, "Accept-Encoding"), &response);
  const bool is_head = absl::string_view(mg_get_request_info(connection)->request_method) == "HEAD";
  Write(connection, response, !is_head);
  return response.status;
}

int HttpServer::OnLog(const mg_connection* connection, const char* message) {
  mg_context* const context = mg_get_context(connection);
  if (context != nullptr) {
    if (auto* const server = static_cast<HttpServer*>(mg_get_user_data(context))) {
      const absl::MutexLock lock(&server->mutex_);
      server->said_ = message;
    }
  }
  return 1;  // Said is enough: nothing of it is for the log of the process.
}

}  // namespace expertmesh::telemetry
