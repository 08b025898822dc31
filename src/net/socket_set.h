// The sockets that libcurl wants watched, behind one descriptor.
//
// An epoll descriptor is itself pollable, so the owner of the event loop waits on it alone, however many
// connections there are. Level-triggered: what is not read yet stays ready. Linux only for now; kqueue on
// macOS and BSD would have the same shape.
#pragma once

#include <array>
#include <cstddef>
#include <curl/curl.h>
#include <span>

namespace sqs_ingest {

class SocketSet {
  public:
    SocketSet(); // throws std::system_error: no descriptor, no memory
    ~SocketSet();
    SocketSet(const SocketSet&) = delete;
    SocketSet& operator=(const SocketSet&) = delete;

    int descriptor() const { return epoll_; }

    // `interest` is CURL_POLL_IN, CURL_POLL_OUT or CURL_POLL_INOUT; a second call replaces the first.
    void watch(curl_socket_t socket, int interest);
    // Unknown and closed sockets are ignored: libcurl also announces the end of sockets it never showed.
    void forget(curl_socket_t socket);

    struct Ready {
        curl_socket_t socket;
        int events; // CURL_CSELECT_…
    };
    // Does not wait. Valid until the next call; sockets beyond the first kMaxReady stay ready for it.
    std::span<const Ready> ready();

  private:
    static constexpr std::size_t kMaxReady = 32;

    int epoll_;
    std::array<Ready, kMaxReady> ready_;
};

} // namespace sqs_ingest
