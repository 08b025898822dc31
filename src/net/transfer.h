// One HTTP request on one libcurl easy handle: its options, what libcurl hands over, and its end as data.
#pragma once

#include "net/http.h"

#include <array>
#include <curl/curl.h>
#include <memory>

namespace sqs_ingest {

struct CurlEasyCleanup {
    void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
};
using EasyHandle = std::unique_ptr<CURL, CurlEasyCleanup>;

struct CurlHeadersFree {
    void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using CurlHeaders = std::unique_ptr<curl_slist, CurlHeadersFree>;

// It stays where it is: libcurl keeps its address and points into the request.
class Transfer {
  public:
    // The handle is new or reset. Throws std::runtime_error or std::bad_alloc: libcurl is out of memory.
    Transfer(TransferId id, HttpRequest request, EasyHandle easy, const HttpOptions& options);
    ~Transfer();
    Transfer(const Transfer&) = delete;
    Transfer& operator=(const Transfer&) = delete;

    static Transfer& of(CURL* easy);

    TransferId id() const { return id_; }
    CURL* easy() const { return easy_.get(); }

    // What the transfer came to, once libcurl has ended it.
    std::variant<HttpAnswer, TransportError> end(CURLcode code);

    // The handle, without a trace of this request, for another one.
    EasyHandle take_handle();

  private:
    static std::size_t on_header(char* data, std::size_t, std::size_t length, void* self);
    static std::size_t on_body(char* data, std::size_t, std::size_t length, void* self);
    static curl_socket_t on_open(void* self, curlsocktype, curl_sockaddr* address);

    void set_options(const HttpOptions& options);
    void set_method();
    void set_proxy();
    bool count(std::size_t length);
    void note_header(std::string_view line);
    TransportError error(CURLcode code) const;

    TransferId id_;
    HttpRequest request_;
    CurlHeaders headers_;
    std::size_t max_bytes_; // of headers and body together
    std::size_t bytes_ = 0;
    bool address_refused_ = false; // it is a metadata service's
    HttpAnswer answer_;
    std::array<char, CURL_ERROR_SIZE> error_text_{};
    EasyHandle easy_; // the last member: it points into the others
};

} // namespace sqs_ingest
