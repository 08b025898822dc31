// A real HTTP/1.1 server on 127.0.0.1 for tests, that behaves as badly as it is told to: one thread per
// connection, plain sockets, every answer from one handler. Its destructor ends all connections.
#pragma once

#include <algorithm>
#include <arpa/inet.h>
#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <netinet/tcp.h>
#include <optional>
#include <poll.h>
#include <stdexcept>
#include <string>
#include <strings.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

namespace sqs_ingest::test {

struct ReceivedRequest {
    std::string line;                           // "POST / HTTP/1.1", or all of a TLS handshake's first bytes
    std::map<std::string, std::string> headers; // names in lower case
    std::string body;
};

struct CannedAnswer { // (members have initializers so that an answer can name only some of them)
    int status = 200;
    std::vector<std::pair<std::string, std::string>> headers = {};
    std::string body = {};
    std::chrono::milliseconds delay = {};   // before the first byte
    std::optional<std::size_t> cut_at = {}; // close after so many bytes
    std::optional<std::string> raw = {};    // sent instead of status, headers and body
    bool close = false;                     // after the answer, without saying so
};

class LocalServer {
  public:
    using Handler = std::function<CannedAnswer(const ReceivedRequest&)>;

    explicit LocalServer(Handler handler) : handler_(std::move(handler)), listener_(listen_on_loopback()) {
        acceptor_ = std::thread([this] { accept_all(); });
    }

    ~LocalServer() {
        stopping_ = true;
        shutdown(listener_, SHUT_RDWR);
        acceptor_.join();
        {
            const std::lock_guard lock(mutex_);
            for (const int socket : sockets_)
                shutdown(socket, SHUT_RDWR);
        }
        for (std::thread& thread : threads_)
            thread.join();
        close(listener_);
    }

    LocalServer(const LocalServer&) = delete;
    LocalServer& operator=(const LocalServer&) = delete;

    std::uint16_t port() const { return port_of(listener_); }
    std::string url() const { return "http://127.0.0.1:" + std::to_string(port()) + "/"; }

    int connections() const { return connections_; }
    // Connections that the client closed while an answer was being delayed.
    int abandoned() const { return abandoned_; }

    std::vector<ReceivedRequest> requests() const {
        const std::lock_guard lock(mutex_);
        return requests_;
    }

    // A port on which nobody listens.
    static std::uint16_t unused_port() {
        const int socket = listen_on_loopback();
        const std::uint16_t port = port_of(socket);
        close(socket);
        return port;
    }

  private:
    static int listen_on_loopback() {
        const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        if (socket < 0 || bind(socket, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
            listen(socket, 64) != 0)
            throw std::runtime_error("cannot listen on 127.0.0.1");
        return socket;
    }

    static std::uint16_t port_of(int socket) {
        sockaddr_in address{};
        socklen_t size = sizeof address;
        getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size);
        return ntohs(address.sin_port);
    }

    void accept_all() {
        while (!stopping_) {
            const int socket = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
            if (socket < 0)
                continue;
            const int yes = 1;
            setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
            const std::lock_guard lock(mutex_);
            ++connections_;
            sockets_.push_back(socket);
            threads_.emplace_back([this, socket] { serve(socket); });
        }
    }

    void serve(int socket) {
        std::string buffer;
        while (const auto request = read_request(socket, buffer)) {
            {
                const std::lock_guard lock(mutex_);
                requests_.push_back(*request);
            }
            if (!send_answer(socket, handler_(*request)))
                break;
        }
        const std::lock_guard lock(mutex_);
        std::erase(sockets_, socket);
        close(socket);
    }

    // Leaves in `buffer` what belongs to the next request.
    static std::optional<ReceivedRequest> read_request(int socket, std::string& buffer) {
        std::size_t head_end = 0;
        while ((head_end = buffer.find("\r\n\r\n")) == std::string::npos) {
            if (!read_more(socket, buffer))
                return std::nullopt;
            if (buffer.starts_with('\x16')) // a TLS handshake: gets the handler's plain answer
                return ReceivedRequest{.line = std::exchange(buffer, {}), .headers = {}, .body = {}};
        }
        ReceivedRequest request = parse_head(buffer.substr(0, head_end + 2));
        const std::size_t length = std::strtoul(request.headers["content-length"].c_str(), nullptr, 10);
        while (buffer.size() < head_end + 4 + length)
            if (!read_more(socket, buffer))
                return std::nullopt;
        request.body = buffer.substr(head_end + 4, length);
        buffer.erase(0, head_end + 4 + length);
        return request;
    }

    static bool read_more(int socket, std::string& buffer) {
        char bytes[16384];
        const ssize_t count = recv(socket, bytes, sizeof bytes, 0);
        if (count > 0)
            buffer.append(bytes, static_cast<std::size_t>(count));
        return count > 0;
    }

    // `head`: the request line and the headers, each ended by CRLF.
    static ReceivedRequest parse_head(const std::string& head) {
        ReceivedRequest request;
        std::size_t begin = head.find("\r\n");
        request.line = head.substr(0, begin);
        for (begin += 2; begin < head.size();) {
            const std::size_t end = head.find("\r\n", begin);
            const std::size_t colon = head.find(':', begin);
            std::string name = head.substr(begin, colon - begin);
            std::transform(name.begin(), name.end(), name.begin(),
                           [](unsigned char c) { return std::tolower(c); });
            const std::size_t value = std::min(head.find_first_not_of(' ', colon + 1), end);
            request.headers[name] = head.substr(value, end - value);
            begin = end + 2;
        }
        return request;
    }

    static std::string bytes_of(const CannedAnswer& answer) {
        if (answer.raw)
            return *answer.raw;
        std::string bytes = "HTTP/1.1 " + std::to_string(answer.status) + " Canned\r\n";
        for (const auto& [name, value] : answer.headers)
            bytes += name + ": " + value + "\r\n";
        return bytes + "Content-Length: " + std::to_string(answer.body.size()) + "\r\n\r\n" + answer.body;
    }

    // False: the connection is over.
    bool send_answer(int socket, const CannedAnswer& answer) {
        if (answer.delay.count() > 0 && client_leaves_within(socket, answer.delay))
            return false;
        const std::string bytes = bytes_of(answer);
        const std::size_t size = std::min(bytes.size(), answer.cut_at.value_or(bytes.size()));
        for (std::size_t done = 0; done < size;) {
            const ssize_t count = send(socket, bytes.data() + done, size - done, MSG_NOSIGNAL);
            if (count <= 0)
                return false;
            done += static_cast<std::size_t>(count);
        }
        return !answer.close && !answer.cut_at;
    }

    bool client_leaves_within(int socket, std::chrono::milliseconds delay) {
        pollfd entry{socket, POLLRDHUP, 0};
        if (poll(&entry, 1, static_cast<int>(delay.count())) <= 0)
            return false;
        if (!stopping_)
            ++abandoned_;
        return true;
    }

    Handler handler_;
    int listener_;
    std::atomic<bool> stopping_ = false;
    std::atomic<int> connections_ = 0;
    std::atomic<int> abandoned_ = 0;
    mutable std::mutex mutex_;
    std::vector<ReceivedRequest> requests_;
    std::vector<int> sockets_; // of open connections
    std::vector<std::thread> threads_;
    std::thread acceptor_;
};

} // namespace sqs_ingest::test
