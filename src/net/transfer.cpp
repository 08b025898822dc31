#include "net/transfer.h"

#include "core/text.h"

#include <arpa/inet.h>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>
#include <openssl/crypto.h>
#include <stdexcept>
#include <sys/socket.h>
#include <unistd.h>

namespace sqs_ingest {
namespace {

static_assert(CURL_ERROR_SIZE <= 300, "a TransportError's message has at most 300 bytes");

template<class T>
void set(CURL* easy, CURLoption option, T value) {
    const CURLcode code = curl_easy_setopt(easy, option, value);
    if (code == CURLE_OUT_OF_MEMORY)
        throw std::bad_alloc();
    if (code != CURLE_OK)
        throw std::runtime_error(std::string("libcurl refused an option: ") + curl_easy_strerror(code));
}

void append(CurlHeaders& list, const std::string& line) {
    curl_slist* longer = curl_slist_append(list.get(), line.c_str());
    if (longer == nullptr)
        throw std::bad_alloc();
    (void)list.release(); // it is part of the longer one
    list.reset(longer);
}

CurlHeaders to_curl(const Headers& headers, HttpMethod method) {
    CurlHeaders list;
    if (method == HttpMethod::put)
        append(list, "Content-Type:"); // the form that libcurl takes every body for
    for (const auto& [name, value] : headers)
        append(list, value.empty() ? name + ";" : name + ": " + value); // "name:" would remove the header
    append(list, "Expect:"); // no 100-continue: it costs a round trip for each large body
    return list;
}

std::string_view trimmed(std::string_view text) {
    constexpr std::string_view kSpace = " \t\r\n";
    const auto first = text.find_first_not_of(kSpace);
    return first == text.npos ? "" : text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

std::string readable(CURLcode code) {
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return "NameNotResolved";
    case CURLE_COULDNT_CONNECT:
        return "CouldNotConnect";
    case CURLE_OPERATION_TIMEDOUT:
        return "Timeout";
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CRL_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_ENGINE_NOTFOUND:
    case CURLE_SSL_ENGINE_SETFAILED:
    case CURLE_SSL_ENGINE_INITFAILED:
    case CURLE_PEER_FAILED_VERIFICATION:
        return "TlsError";
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_PARTIAL_FILE:
        return "ConnectionLost";
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_BAD_CONTENT_ENCODING:
        return "BadAnswer";
    case CURLE_URL_MALFORMAT:
        return "BadUrl";
    case CURLE_PROXY:
        return "ProxyError";
    case CURLE_OUT_OF_MEMORY:
    case CURLE_WRITE_ERROR: // on_header() and on_body() fail only so
        return "OutOfMemory";
    default:
        return "Curl" + std::to_string(code);
    }
}

// A message can quote a server's certificate, and that may hold any bytes.
std::string printable(std::string text) {
    for (char& c : text)
        if (c < ' ' || c > '~')
            c = '?';
    return text;
}

// libcurl quotes a proxy's URL that it cannot read, and that may hold a password.
std::string without_proxy_url(std::string text) {
    const auto quote = text.find('\'');
    if (text.find("proxy") != text.npos && quote != text.npos)
        text.resize(text.find_last_not_of(' ', quote - 1) + 1);
    return text;
}

bool is_metadata_address(const in_addr& address) {
    return (ntohl(address.s_addr) >> 16) == 0xA9FE; // 169.254.0.0/16
}

bool is_metadata_address(const in6_addr& address) {
    if (IN6_IS_ADDR_V4MAPPED(&address)) {
        in_addr v4;
        std::memcpy(&v4, address.s6_addr + 12, sizeof v4);
        return is_metadata_address(v4);
    }
    constexpr std::array<std::uint8_t, 4> kEc2 = {0xFD, 0x00, 0x0E, 0xC2};
    return IN6_IS_ADDR_LINKLOCAL(&address) || std::memcmp(address.s6_addr, kEc2.data(), kEc2.size()) == 0;
}

bool is_metadata_address(const sockaddr& address) {
    if (address.sa_family == AF_INET)
        return is_metadata_address(reinterpret_cast<const sockaddr_in&>(address).sin_addr);
    return address.sa_family == AF_INET6 &&
           is_metadata_address(reinterpret_cast<const sockaddr_in6&>(address).sin6_addr);
}

bool was_sent(CURL* easy) {
    long bytes = 0;
    curl_easy_getinfo(easy, CURLINFO_REQUEST_SIZE, &bytes);
    return bytes > 0;
}

} // namespace

Transfer::Transfer(TransferId id, HttpRequest request, EasyHandle easy, const HttpOptions& options)
    : id_(id), request_(std::move(request)), headers_(to_curl(request_.headers, request_.method)),
      max_bytes_(request_.max_answer_bytes.value_or(options.max_answer_bytes)), easy_(std::move(easy)) {
    set_options(options);
}

// A request for credentials holds secrets: tokens in headers, and in a body.
Transfer::~Transfer() {
    OPENSSL_cleanse(request_.body.data(), request_.body.size());
    for (auto& [name, value] : request_.headers)
        OPENSSL_cleanse(value.data(), value.size());
    for (curl_slist* header = headers_.get(); header != nullptr; header = header->next)
        OPENSSL_cleanse(header->data, std::strlen(header->data));
}

void Transfer::set_options(const HttpOptions& options) {
    CURL* const easy = easy_.get();
    set(easy, CURLOPT_PRIVATE, this);
    set(easy, CURLOPT_ERRORBUFFER, error_text_.data());
    set(easy, CURLOPT_HEADERFUNCTION, &on_header);
    set(easy, CURLOPT_HEADERDATA, this);
    set(easy, CURLOPT_WRITEFUNCTION, &on_body);
    set(easy, CURLOPT_WRITEDATA, this);

    set(easy, CURLOPT_URL, request_.url.c_str());
    set(easy, CURLOPT_HTTPHEADER, headers_.get());
    set(easy, CURLOPT_USERAGENT, options.user_agent.c_str());
    set_method();
    set_proxy();
    set(easy, CURLOPT_OPENSOCKETFUNCTION, &on_open);
    set(easy, CURLOPT_OPENSOCKETDATA, this);
    if (request_.metadata ==
        MetadataAddresses::allowed) // its connection must not serve a request that is not
        set(easy, CURLOPT_FORBID_REUSE, 1L);

    // The total deadline is the watchdog too: a long poll is silent by design, so no low-speed limit.
    set(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(request_.connect_timeout.count()));
    set(easy, CURLOPT_TIMEOUT_MS, static_cast<long>(request_.total_timeout.count()));
    set(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    set(easy, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));

    set(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    set(easy, CURLOPT_FOLLOWLOCATION, 0L);
    set(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L); // a proxy's headers are not the answer's
    set(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    set(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    if (!options.ca_file.empty())
        set(easy, CURLOPT_CAINFO, options.ca_file.c_str());

    set(easy, CURLOPT_NOSIGNAL, 1L);
    set(easy, CURLOPT_QUICK_EXIT, 1L); // never wait for a resolver thread
}

void Transfer::set_method() {
    CURL* const easy = easy_.get();
    if (request_.method == HttpMethod::get) {
        set(easy, CURLOPT_HTTPGET, 1L);
        return;
    }
    set(easy, CURLOPT_POST, 1L);
    if (request_.method == HttpMethod::put)
        set(easy, CURLOPT_CUSTOMREQUEST, "PUT");
    set(easy, CURLOPT_POSTFIELDS, request_.body.data());
    set(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request_.body.size()));
}

// libcurl reads the variables by itself, all but HTTP_PROXY: a web server's CGI program could be lured with
// it. Here it means what it means to AWS's tools. NO_PROXY counts for it too.
void Transfer::set_proxy() {
    if (request_.no_proxy) {
        set(easy_.get(), CURLOPT_PROXY, "");
        return;
    }
    const char* proxy = std::getenv("HTTP_PROXY");
    const bool named_otherwise = std::getenv("http_proxy") != nullptr;
    if (request_.url.starts_with("http://") && proxy != nullptr && *proxy != '\0' && !named_otherwise)
        set(easy_.get(), CURLOPT_PROXY, proxy);
}

Transfer& Transfer::of(CURL* easy) {
    char* transfer = nullptr;
    curl_easy_getinfo(easy, CURLINFO_PRIVATE, &transfer);
    return *reinterpret_cast<Transfer*>(transfer);
}

std::variant<HttpAnswer, TransportError> Transfer::end(CURLcode code) {
    if (bytes_ > max_bytes_)
        return TransportError{"TooLarge",
                              "the answer is larger than " + std::to_string(max_bytes_) + " bytes"};
    if (address_refused_ && code != CURLE_OK)
        return TransportError{"MetadataAddress",
                              "the host is an address of a metadata service, which no queue can have"};
    if (code != CURLE_OK)
        return error(code);
    long status = 0;
    curl_easy_getinfo(easy(), CURLINFO_RESPONSE_CODE, &status);
    answer_.status = static_cast<int>(status);
    return std::move(answer_);
}

TransportError Transfer::error(CURLcode code) const {
    TransportError error{
        readable(code),
        printable(without_proxy_url(error_text_[0] ? error_text_.data() : curl_easy_strerror(code)))};
    // libcurl says this of a foreign URL, and of an answer that is no HTTP ("HTTP/0.9").
    if (code == CURLE_UNSUPPORTED_PROTOCOL)
        error.code = was_sent(easy()) ? "BadAnswer" : "BadUrl";
    return error;
}

EasyHandle Transfer::take_handle() {
    curl_easy_reset(easy());
    return std::move(easy_);
}

// Both callbacks return less than `length` to end the transfer. Nothing may be thrown through libcurl.
std::size_t Transfer::on_header(char* data, std::size_t, std::size_t length, void* self) try {
    auto& transfer = *static_cast<Transfer*>(self);
    if (!transfer.count(length))
        return 0;
    transfer.note_header({data, length});
    return length;
} catch (...) {
    return 0;
}

std::size_t Transfer::on_body(char* data, std::size_t, std::size_t length, void* self) try {
    auto& transfer = *static_cast<Transfer*>(self);
    if (!transfer.count(length))
        return 0;
    transfer.answer_.body.append(data, length);
    return length;
} catch (...) {
    return 0;
}

// Here, after names were resolved: a name could be anybody's, and say one thing now and another later.
curl_socket_t Transfer::on_open(void* self, curlsocktype, curl_sockaddr* address) {
    auto& transfer = *static_cast<Transfer*>(self);
    if (transfer.request_.metadata == MetadataAddresses::refused && is_metadata_address(address->addr)) {
        transfer.address_refused_ = true;
        errno = EACCES;
        return CURL_SOCKET_BAD;
    }
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

bool Transfer::count(std::size_t length) {
    bytes_ += length;
    return bytes_ <= max_bytes_;
}

void Transfer::note_header(std::string_view line) {
    if (line.starts_with("HTTP/")) { // a status line: what came before was an interim answer
        answer_ = {};
        return;
    }
    const auto colon = line.find(':');
    if (colon == line.npos)
        return;
    const std::string name = ascii_lower(line.substr(0, colon));
    if (name == "x-amzn-query-error")
        answer_.query_error = trimmed(line.substr(colon + 1));
    else if (name == "date")
        answer_.date = trimmed(line.substr(colon + 1));
}

} // namespace sqs_ingest
