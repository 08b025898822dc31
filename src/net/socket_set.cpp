#include "net/socket_set.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <sys/epoll.h>
#include <system_error>
#include <unistd.h>

namespace sqs_ingest {
namespace {

std::uint32_t to_epoll(int interest) {
    return ((interest & CURL_POLL_IN) ? EPOLLIN : 0u) | ((interest & CURL_POLL_OUT) ? EPOLLOUT : 0u);
}

// An error or a hang-up is given to libcurl as "readable and writable": it then meets the error itself and
// reports the system's reason. Told CURL_CSELECT_ERR it would only say that poll failed, and drop what
// is still unread.
int to_curl(std::uint32_t events) {
    if (events & (EPOLLERR | EPOLLHUP))
        return CURL_CSELECT_IN | CURL_CSELECT_OUT;
    return ((events & EPOLLIN) ? CURL_CSELECT_IN : 0) | ((events & EPOLLOUT) ? CURL_CSELECT_OUT : 0);
}

} // namespace

SocketSet::SocketSet() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    if (epoll_ < 0)
        throw std::system_error(errno, std::generic_category(), "epoll_create1");
}

SocketSet::~SocketSet() {
    close(epoll_);
}

// A socket that the kernel refuses to watch (out of memory) costs only its own transfer, which then ends by
// its deadline. Reporting the failure to libcurl would end the whole multi handle for good.
void SocketSet::watch(curl_socket_t socket, int interest) {
    epoll_event event{};
    event.events = to_epoll(interest);
    event.data.fd = socket;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, socket, &event) != 0 && errno == EEXIST)
        epoll_ctl(epoll_, EPOLL_CTL_MOD, socket, &event);
}

void SocketSet::forget(curl_socket_t socket) {
    epoll_event unused{};
    epoll_ctl(epoll_, EPOLL_CTL_DEL, socket, &unused);
}

std::span<const SocketSet::Ready> SocketSet::ready() {
    std::array<epoll_event, kMaxReady> events;
    const int count = std::max(0, epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), 0));
    std::transform(events.begin(), events.begin() + count, ready_.begin(), [](const epoll_event& event) {
        return Ready{event.data.fd, to_curl(event.events)};
    });
    return {ready_.data(), static_cast<std::size_t>(count)};
}

} // namespace sqs_ingest
