// HTTP requests on one epoll descriptor: libcurl multi, driven by whoever owns the event loop.
//
// Nothing here blocks and nothing calls back: the owner waits until descriptor() is readable or timeout() is
// over, calls advance(), and takes what finished. Transport errors are data. No redirects, http and https
// only, TLS verified, answers capped, keep-alive connections kept in one cache.
#pragma once

#include "core/sqs/sigv4.h" // Headers

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace sqs_ingest {

using TransferId = std::uint64_t;

enum class HttpMethod { get, put, post };

// Whether a request may go to this machine's own metadata services: link-local addresses (169.254.0.0/16,
// fe80::/10) and EC2's fd00:ec2::/32. Whoever can name a queue's URL must not reach them, whatever a name
// resolves to; only the code that fetches credentials may.
enum class MetadataAddresses { refused, allowed };

struct HttpRequest {
    std::string url;
    Headers headers = {};  // sent as they are, Host and Content-Length are curl's
    std::string body = {}; // of a POST or PUT
    std::chrono::milliseconds connect_timeout{5000};
    std::chrono::milliseconds total_timeout{30000}; // from start to the last byte
    HttpMethod method = HttpMethod::post;
    std::optional<std::size_t> max_answer_bytes = {}; // empty: the loop's
    bool no_proxy = false;                            // else HTTPS_PROXY, HTTP_PROXY, NO_PROXY count
    MetadataAddresses metadata = MetadataAddresses::refused;
};

struct HttpAnswer {
    int status = 0;
    std::string query_error; // header x-amzn-query-error, else empty
    std::string date;        // header Date, else empty
    std::string body;
};

struct TransportError {
    std::string
        code; // "CouldNotConnect", "Timeout", "TlsError", "NameNotResolved", "TooLarge", "ConnectionLost", …
    std::string message; // for people, from libcurl, at most 300 bytes
};

struct Completed {
    TransferId id;
    std::variant<HttpAnswer, TransportError> result;
};

struct HttpOptions {
    std::string ca_file;                      // empty: the system's trust store
    std::size_t max_answer_bytes = 64u << 20; // 10 messages of 1 MiB with every byte escaped
    std::string user_agent = "sqs_ingest";
};

class HttpLoop {
  public:
    explicit HttpLoop(HttpOptions options); // throws std::runtime_error: no descriptor, no memory
    ~HttpLoop();
    HttpLoop(const HttpLoop&) = delete;
    HttpLoop& operator=(const HttpLoop&) = delete;

    // Readable when advance() has work. Owned by the loop.
    int descriptor() const;

    // How long to wait at most before advance() is due; empty: no timer is running.
    std::optional<std::chrono::milliseconds> timeout() const;

    TransferId start(HttpRequest request);

    // An id for a request that is started later, with start(id, request), or never.
    TransferId reserve();
    void start(TransferId reserved, HttpRequest request);

    // Has descriptor() be readable when `other` is: a pipe that its owner reads after each advance(). It is
    // forgotten before it is closed or right after: its number may soon be another's.
    void watch(int other);
    void forget(int other);

    // Forgets a transfer and closes its connection; it will not be reported. Unknown ids are ignored.
    void cancel(TransferId id);

    // Does what can be done without waiting; returns the transfers that ended. Signals are blocked meanwhile,
    // so that a thread that libcurl starts (its resolver) never runs the process's signal handlers.
    std::vector<Completed> advance();

    std::size_t in_flight() const;

  private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

} // namespace sqs_ingest
