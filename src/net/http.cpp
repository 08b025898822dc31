// The loop itself: brings together what libcurl's multi handle asks for (sockets to watch, one timer) and
// what the owner can wait on. A single transfer is in transfer.h, the descriptor in socket_set.h.
#include "net/http.h"

#include "net/socket_set.h"
#include "net/transfer.h"

#include <algorithm>
#include <csignal>
#include <map>
#include <set>
#include <stdexcept>

namespace sqs_ingest {
namespace {

using Clock = std::chrono::steady_clock;

constexpr long kMaxConnections = 16;    // kept alive between requests
constexpr std::size_t kIdleHandles = 8; // kept for the next transfers: setting one up costs CPU

// A thread inherits the signal mask of the one that makes it.
class SignalsBlocked {
  public:
    SignalsBlocked() {
        sigset_t all;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before_);
    }
    ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
    SignalsBlocked(const SignalsBlocked&) = delete;
    SignalsBlocked& operator=(const SignalsBlocked&) = delete;

  private:
    sigset_t before_;
};

// Never undone: something in this process may use libcurl until its very end.
void init_curl_once() {
    static const CURLcode code = curl_global_init(CURL_GLOBAL_DEFAULT);
    if (code != CURLE_OK)
        throw std::runtime_error(std::string("curl_global_init: ") + curl_easy_strerror(code));
}

void check(CURLMcode code) {
    if (code != CURLM_OK)
        throw std::runtime_error(std::string("libcurl: ") + curl_multi_strerror(code));
}

struct CurlMultiCleanup {
    void operator()(CURLM* multi) const { curl_multi_cleanup(multi); }
};

} // namespace

class HttpLoop::Impl {
  public:
    explicit Impl(HttpOptions options);
    ~Impl();

    int descriptor() const { return sockets_.descriptor(); }
    std::size_t in_flight() const { return transfers_.size(); }
    std::optional<std::chrono::milliseconds> timeout() const;
    TransferId reserve() { return ++last_id_; }
    void start(TransferId id, HttpRequest request);
    void watch(int other);
    void forget_descriptor(int other);
    void cancel(TransferId id);
    std::vector<Completed> advance();

  private:
    using Transfers = std::map<TransferId, std::unique_ptr<Transfer>>;

    static int on_socket(CURL*, curl_socket_t socket, int interest, void* self, void*);
    static int on_timer(CURLM*, long timeout_ms, void* self);

    void act(curl_socket_t socket, int events);
    void act_on_timer();
    std::vector<Completed> take_completed();
    EasyHandle take_easy_handle();
    void forget(Transfers::iterator transfer);

    HttpOptions options_;
    std::optional<Clock::time_point> deadline_;
    SocketSet sockets_; // before multi_: libcurl still calls on_socket() while the multi handle is destroyed
    std::unique_ptr<CURLM, CurlMultiCleanup> multi_;
    std::vector<EasyHandle> idle_;
    Transfers transfers_;
    std::set<int> others_; // descriptors that are not libcurl's
    TransferId last_id_ = 0;
};

HttpLoop::Impl::Impl(HttpOptions options) : options_(std::move(options)) {
    init_curl_once();
    multi_.reset(curl_multi_init());
    if (!multi_)
        throw std::runtime_error("libcurl: curl_multi_init failed");
    check(curl_multi_setopt(multi_.get(), CURLMOPT_SOCKETFUNCTION, &on_socket));
    check(curl_multi_setopt(multi_.get(), CURLMOPT_SOCKETDATA, this));
    check(curl_multi_setopt(multi_.get(), CURLMOPT_TIMERFUNCTION, &on_timer));
    check(curl_multi_setopt(multi_.get(), CURLMOPT_TIMERDATA, this));
    check(curl_multi_setopt(multi_.get(), CURLMOPT_MAXCONNECTS, kMaxConnections));
}

// In the order libcurl asks for: out of the multi handle, easy handles, multi handle.
HttpLoop::Impl::~Impl() {
    const SignalsBlocked guard;
    for (const auto& [id, transfer] : transfers_)
        curl_multi_remove_handle(multi_.get(), transfer->easy());
    transfers_.clear();
    idle_.clear();
    multi_.reset();
}

// Rounded up: libcurl ignores a timer that fires before its time, and does not ask for it again.
std::optional<std::chrono::milliseconds> HttpLoop::Impl::timeout() const {
    if (!deadline_)
        return std::nullopt;
    return std::max(std::chrono::milliseconds::zero(),
                    std::chrono::ceil<std::chrono::milliseconds>(*deadline_ - Clock::now()));
}

void HttpLoop::Impl::start(TransferId id, HttpRequest request) {
    auto transfer = std::make_unique<Transfer>(id, std::move(request), take_easy_handle(), options_);
    const auto added = transfers_.emplace(id, std::move(transfer)).first;
    const SignalsBlocked guard;
    const CURLMcode code = curl_multi_add_handle(multi_.get(), added->second->easy());
    if (code != CURLM_OK)
        transfers_.erase(added);
    check(code);
}

void HttpLoop::Impl::watch(int other) {
    others_.insert(other);
    sockets_.watch(other, CURL_POLL_IN);
}

void HttpLoop::Impl::forget_descriptor(int other) {
    sockets_.forget(other);
    others_.erase(other);
}

void HttpLoop::Impl::cancel(TransferId id) {
    const auto transfer = transfers_.find(id);
    if (transfer == transfers_.end())
        return;
    const SignalsBlocked guard;
    forget(transfer);
}

std::vector<Completed> HttpLoop::Impl::advance() {
    const SignalsBlocked guard;
    for (const auto& [socket, events] : sockets_.ready())
        if (!others_.contains(socket))
            act(socket, events);
    if (deadline_ && *deadline_ <= Clock::now())
        act_on_timer();
    return take_completed();
}

void HttpLoop::Impl::act(curl_socket_t socket, int events) {
    int running = 0;
    check(curl_multi_socket_action(multi_.get(), socket, events, &running));
}

void HttpLoop::Impl::act_on_timer() {
    deadline_.reset(); // first: libcurl sets the next one meanwhile
    act(CURL_SOCKET_TIMEOUT, 0);
}

std::vector<Completed> HttpLoop::Impl::take_completed() {
    std::vector<Completed> completed;
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi_.get(), &left)) {
        Transfer& transfer = Transfer::of(message->easy_handle);
        completed.push_back({transfer.id(), transfer.end(message->data.result)});
        forget(transfers_.find(transfer.id()));
    }
    return completed;
}

EasyHandle HttpLoop::Impl::take_easy_handle() {
    if (idle_.empty()) {
        EasyHandle easy(curl_easy_init());
        if (!easy)
            throw std::bad_alloc();
        return easy;
    }
    EasyHandle easy = std::move(idle_.back());
    idle_.pop_back();
    return easy;
}

// libcurl closes the connection of a transfer that is taken away before its end.
void HttpLoop::Impl::forget(Transfers::iterator transfer) {
    curl_multi_remove_handle(multi_.get(), transfer->second->easy());
    if (idle_.size() < kIdleHandles)
        idle_.push_back(transfer->second->take_handle());
    transfers_.erase(transfer);
}

int HttpLoop::Impl::on_socket(CURL*, curl_socket_t socket, int interest, void* self, void*) {
    auto& sockets = static_cast<Impl*>(self)->sockets_;
    if (interest == CURL_POLL_REMOVE)
        sockets.forget(socket);
    else
        sockets.watch(socket, interest);
    return 0;
}

int HttpLoop::Impl::on_timer(CURLM*, long timeout_ms, void* self) {
    auto& deadline = static_cast<Impl*>(self)->deadline_;
    if (timeout_ms < 0)
        deadline.reset();
    else
        deadline = Clock::now() + std::chrono::milliseconds(timeout_ms);
    return 0;
}

HttpLoop::HttpLoop(HttpOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
HttpLoop::~HttpLoop() = default;

int HttpLoop::descriptor() const {
    return impl_->descriptor();
}

std::optional<std::chrono::milliseconds> HttpLoop::timeout() const {
    return impl_->timeout();
}

TransferId HttpLoop::start(HttpRequest request) {
    const TransferId id = impl_->reserve();
    impl_->start(id, std::move(request));
    return id;
}

TransferId HttpLoop::reserve() {
    return impl_->reserve();
}

void HttpLoop::start(TransferId reserved, HttpRequest request) {
    impl_->start(reserved, std::move(request));
}

void HttpLoop::watch(int other) {
    impl_->watch(other);
}

void HttpLoop::forget(int other) {
    impl_->forget_descriptor(other);
}

void HttpLoop::cancel(TransferId id) {
    impl_->cancel(id);
}

std::vector<Completed> HttpLoop::advance() {
    return impl_->advance();
}

std::size_t HttpLoop::in_flight() const {
    return impl_->in_flight();
}

} // namespace sqs_ingest
