// HttpLoop against a real server on the loopback interface: what it sends, what it gives back, and that
// nothing a server does can block it.
#include "net/http.h"

#include "local_server.h"

#include <csignal>
#include <fcntl.h>
#include <filesystem>
#include <gtest/gtest.h>

namespace sqs_ingest {
namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;
using test::CannedAnswer;
using test::LocalServer;
using test::ReceivedRequest;
using Clock = std::chrono::steady_clock;

constexpr auto kPatience = 5s; // a test that waits longer has failed

// A turn of an owner's event loop: waits as HttpLoop asks, then advances.
std::vector<Completed> turn(HttpLoop& loop, milliseconds at_most) {
    pollfd entry{loop.descriptor(), POLLIN, 0};
    poll(&entry, 1, static_cast<int>(std::min(loop.timeout().value_or(at_most), at_most).count()));
    return loop.advance();
}

std::vector<Completed> run(HttpLoop& loop, std::size_t expected) {
    std::vector<Completed> all;
    for (const auto end = Clock::now() + kPatience; all.size() < expected && Clock::now() < end;)
        for (Completed& completed : turn(loop, 100ms))
            all.push_back(std::move(completed));
    return all;
}

template<class Condition>
bool eventually(HttpLoop& loop, Condition condition) {
    for (const auto end = Clock::now() + kPatience; !condition() && Clock::now() < end;)
        turn(loop, 10ms);
    return condition();
}

HttpRequest request_to(const std::string& url, std::string body = "{}") {
    return {.url = url,
            .headers = {{"content-type", "application/x-amz-json-1.0"}},
            .body = std::move(body),
            .total_timeout = 5s};
}

std::variant<HttpAnswer, TransportError> fetch(HttpLoop& loop, HttpRequest request) {
    loop.start(std::move(request));
    auto completed = run(loop, 1);
    if (completed.size() != 1)
        throw std::runtime_error("the request did not end");
    return std::move(completed.front().result);
}

HttpAnswer answer(HttpLoop& loop, HttpRequest request) {
    return std::get<HttpAnswer>(fetch(loop, std::move(request)));
}

std::string error_code(HttpLoop& loop, HttpRequest request) {
    return std::get<TransportError>(fetch(loop, std::move(request))).code;
}

CannedAnswer echo(const ReceivedRequest& request) {
    return {.body = request.body};
}

class HttpLoopTest : public testing::Test {
  protected:
    void SetUp() override { setenv("no_proxy", "*", 1); }

    HttpLoop loop_{HttpOptions{}};
};

TEST_F(HttpLoopTest, a_request_gets_its_answer) {
    LocalServer server([](const ReceivedRequest&) {
        return CannedAnswer{.status = 404,
                            .headers = {{"X-AMZN-Query-Error", "QueueDoesNotExist;Sender"},
                                        {"date", "Tue, 01 Jul 2025 10:00:00 GMT"}},
                            .body = "gone"};
    });
    const HttpAnswer got = answer(loop_, request_to(server.url()));
    EXPECT_EQ(got.status, 404);
    EXPECT_EQ(got.body, "gone");
    EXPECT_EQ(got.query_error, "QueueDoesNotExist;Sender");
    EXPECT_EQ(got.date, "Tue, 01 Jul 2025 10:00:00 GMT");
}

TEST_F(HttpLoopTest, a_request_is_sent_as_it_is) {
    LocalServer server(echo);
    HttpRequest request = request_to(server.url(), std::string("a\0b", 3));
    request.headers.emplace_back("x-amz-target", "AmazonSQS.ReceiveMessage");
    request.headers.emplace_back("x-empty", "");
    EXPECT_EQ(answer(loop_, request).body, request.body);

    const ReceivedRequest got = server.requests().at(0);
    EXPECT_EQ(got.line, "POST / HTTP/1.1");
    EXPECT_EQ(got.headers.at("host"), "127.0.0.1:" + std::to_string(server.port()));
    EXPECT_EQ(got.headers.at("content-type"), "application/x-amz-json-1.0");
    EXPECT_EQ(got.headers.at("content-length"), "3");
    EXPECT_EQ(got.headers.at("x-amz-target"), "AmazonSQS.ReceiveMessage");
    EXPECT_EQ(got.headers.at("x-empty"), "");
    EXPECT_EQ(got.headers.at("user-agent"), "sqs_ingest");
}

TEST_F(HttpLoopTest, a_large_request_does_not_wait_for_100_continue) {
    LocalServer server(echo);
    const std::string body(4 << 20, 'x');
    EXPECT_EQ(answer(loop_, request_to(server.url(), body)).body, body);
    EXPECT_FALSE(server.requests().at(0).headers.contains("expect"));
}

TEST_F(HttpLoopTest, one_connection_serves_requests_one_after_the_other) {
    LocalServer server(echo);
    for (int i = 0; i < 20; ++i)
        EXPECT_EQ(answer(loop_, request_to(server.url(), std::to_string(i))).body, std::to_string(i));
    EXPECT_EQ(server.connections(), 1);
}

TEST_F(HttpLoopTest, requests_in_flight_do_not_wait_for_each_other) {
    LocalServer server([](const ReceivedRequest& request) {
        return CannedAnswer{.body = request.body, .delay = request.body == "slow" ? 400ms : 0ms};
    });
    const TransferId slow = loop_.start(request_to(server.url(), "slow"));
    const TransferId fast = loop_.start(request_to(server.url(), "fast"));
    EXPECT_EQ(loop_.in_flight(), 2u);

    const auto completed = run(loop_, 2);
    ASSERT_EQ(completed.size(), 2u);
    EXPECT_EQ(completed[0].id, fast);
    EXPECT_EQ(completed[1].id, slow);
    EXPECT_EQ(std::get<HttpAnswer>(completed[1].result).body, "slow");
    EXPECT_EQ(loop_.in_flight(), 0u);
}

TEST_F(HttpLoopTest, many_requests_at_once_all_get_their_own_answer) {
    LocalServer server(echo);
    std::map<TransferId, std::string> expected;
    for (int i = 0; i < 100; ++i)
        expected[loop_.start(request_to(server.url(), std::to_string(i)))] = std::to_string(i);
    for (const Completed& completed : run(loop_, 100)) {
        EXPECT_EQ(std::get<HttpAnswer>(completed.result).body, expected.at(completed.id));
        expected.erase(completed.id);
    }
    EXPECT_TRUE(expected.empty());
}

TEST_F(HttpLoopTest, a_kept_connection_that_the_server_closed_is_replaced) {
    LocalServer server(
        [](const ReceivedRequest& request) { return CannedAnswer{.body = request.body, .close = true}; });
    for (const std::string body : {"first", "second", "third"})
        EXPECT_EQ(answer(loop_, request_to(server.url(), body)).body, body);
    EXPECT_EQ(server.connections(), 3);
}

TEST_F(HttpLoopTest, an_interim_answer_is_not_the_answer) {
    LocalServer server([](const ReceivedRequest&) {
        return CannedAnswer{
            .raw = "HTTP/1.1 103 Early Hints\r\nDate: yesterday\r\nx-amzn-query-error: early\r\n\r\n"
                   "HTTP/1.1 200 OK\r\nDate: today\r\nContent-Length: 2\r\n\r\nok"};
    });
    const HttpAnswer got = answer(loop_, request_to(server.url()));
    EXPECT_EQ(got.status, 200);
    EXPECT_EQ(got.date, "today");
    EXPECT_EQ(got.query_error, "");
    EXPECT_EQ(got.body, "ok");
}

TEST_F(HttpLoopTest, a_redirect_is_an_answer_and_is_not_followed) {
    LocalServer elsewhere(echo);
    LocalServer server([&](const ReceivedRequest&) {
        return CannedAnswer{.status = 307, .headers = {{"Location", elsewhere.url()}}};
    });
    EXPECT_EQ(answer(loop_, request_to(server.url())).status, 307);
    EXPECT_EQ(elsewhere.connections(), 0);
}

TEST_F(HttpLoopTest, a_slow_answer_ends_at_the_total_deadline) {
    LocalServer server([](const ReceivedRequest&) { return CannedAnswer{.delay = 10s}; });
    HttpRequest request = request_to(server.url());
    request.total_timeout = 200ms;
    const auto start = Clock::now();
    EXPECT_EQ(error_code(loop_, request), "Timeout");
    EXPECT_GE(Clock::now() - start, 190ms);
    EXPECT_LT(Clock::now() - start, 2s);
}

TEST_F(HttpLoopTest, an_answer_that_never_comes_to_its_end_ends_at_the_total_deadline) {
    LocalServer server([](const ReceivedRequest&) {
        return CannedAnswer{.raw = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"};
    });
    HttpRequest request = request_to(server.url());
    request.total_timeout = 200ms;
    EXPECT_EQ(error_code(loop_, request), "Timeout");
}

TEST_F(HttpLoopTest, an_answer_cut_off_is_a_lost_connection) {
    LocalServer server(
        [](const ReceivedRequest&) { return CannedAnswer{.body = std::string(500, 'x'), .cut_at = 300}; });
    EXPECT_EQ(error_code(loop_, request_to(server.url())), "ConnectionLost");
}

TEST_F(HttpLoopTest, a_connection_closed_without_an_answer_is_a_lost_connection) {
    LocalServer server([](const ReceivedRequest&) { return CannedAnswer{.cut_at = 0}; });
    EXPECT_EQ(error_code(loop_, request_to(server.url())), "ConnectionLost");
}

TEST_F(HttpLoopTest, an_answer_that_is_no_http_is_a_bad_answer) {
    LocalServer server(
        [](const ReceivedRequest&) { return CannedAnswer{.raw = "\x15\x03\x01 how do you do?\r\n\r\n"}; });
    EXPECT_EQ(error_code(loop_, request_to(server.url())), "BadAnswer");
}

TEST_F(HttpLoopTest, a_refused_connection_is_an_error_at_once) {
    const std::string url = "http://127.0.0.1:" + std::to_string(LocalServer::unused_port()) + "/";
    EXPECT_EQ(error_code(loop_, request_to(url)), "CouldNotConnect");
}

TEST_F(HttpLoopTest, a_server_without_tls_is_a_tls_error) {
    LocalServer server([](const ReceivedRequest&) { return CannedAnswer{}; });
    EXPECT_EQ(error_code(loop_, request_to("https://127.0.0.1:" + std::to_string(server.port()) + "/")),
              "TlsError");
}

TEST_F(HttpLoopTest, only_http_and_https_are_spoken) {
    EXPECT_EQ(error_code(loop_, request_to("ftp://127.0.0.1/")), "BadUrl");
    EXPECT_EQ(error_code(loop_, request_to("file:///etc/passwd")), "BadUrl");
    EXPECT_EQ(error_code(loop_, request_to("http://")), "BadUrl");
}

// A label above 63 characters (RFC 1035) is refused by the resolver itself: the test needs no name server.
TEST_F(HttpLoopTest, an_unknown_host_is_not_resolved) {
    EXPECT_EQ(error_code(loop_, request_to("http://" + std::string(64, 'x') + ".invalid/")),
              "NameNotResolved");
}

TEST_F(HttpLoopTest, an_error_says_nothing_of_the_request) {
    LocalServer server([](const ReceivedRequest&) { return CannedAnswer{.cut_at = 0}; });
    HttpRequest request = request_to(server.url(), "secret-body");
    request.headers.emplace_back("Authorization", "secret-header");
    const auto error = std::get<TransportError>(fetch(loop_, request));
    EXPECT_FALSE(error.message.empty());
    EXPECT_LE(error.message.size(), 300u);
    EXPECT_EQ(error.message.find("secret"), std::string::npos);
}

TEST_F(HttpLoopTest, after_any_error_the_loop_still_works) {
    LocalServer server([](const ReceivedRequest& request) {
        return request.body == "bad" ? CannedAnswer{.cut_at = 5} : CannedAnswer{.body = "fine"};
    });
    for (int i = 0; i < 10; ++i) {
        EXPECT_EQ(error_code(loop_, request_to(server.url(), "bad")), "ConnectionLost");
        EXPECT_EQ(answer(loop_, request_to(server.url(), "good")).body, "fine");
    }
}

TEST_F(HttpLoopTest, a_cancelled_transfer_is_closed_and_not_reported) {
    LocalServer server([](const ReceivedRequest&) { return CannedAnswer{.delay = 10s}; });
    const TransferId id = loop_.start(request_to(server.url()));
    ASSERT_TRUE(eventually(loop_, [&] { return server.requests().size() == 1; }));
    loop_.cancel(id);
    EXPECT_EQ(loop_.in_flight(), 0u);
    EXPECT_TRUE(eventually(loop_, [&] { return server.abandoned() == 1; }));
    EXPECT_TRUE(turn(loop_, 10ms).empty());
}

TEST_F(HttpLoopTest, cancelling_what_is_over_or_never_was_does_nothing) {
    LocalServer server(echo);
    const TransferId id = loop_.start(request_to(server.url()));
    EXPECT_EQ(run(loop_, 1).size(), 1u);
    loop_.cancel(id);
    loop_.cancel(12345);
    EXPECT_EQ(answer(loop_, request_to(server.url(), "on")).body, "on");
}

TEST_F(HttpLoopTest, a_transfer_can_be_cancelled_before_it_began) {
    LocalServer server(echo);
    loop_.cancel(loop_.start(request_to(server.url())));
    EXPECT_TRUE(turn(loop_, 50ms).empty());
    EXPECT_EQ(server.requests().size(), 0u);
}

TEST_F(HttpLoopTest, an_idle_loop_asks_for_no_wake_up) {
    LocalServer server(echo);
    EXPECT_EQ(loop_.timeout(), std::nullopt);
    answer(loop_, request_to(server.url()));
    for (int i = 0; i < 10 && loop_.timeout(); ++i)
        turn(loop_, 1000ms);
    EXPECT_EQ(loop_.timeout(), std::nullopt);
    pollfd entry{loop_.descriptor(), POLLIN, 0};
    EXPECT_EQ(poll(&entry, 1, 50), 0);
}

TEST_F(HttpLoopTest, a_long_poll_wakes_its_owner_rarely) {
    LocalServer server([](const ReceivedRequest&) { return CannedAnswer{.delay = 1s}; });
    loop_.start(request_to(server.url()));
    int turns = 0;
    for (bool over = false; !over && turns < 1000; ++turns)
        over = !turn(loop_, 10s).empty();
    EXPECT_LT(turns, 20);
}

TEST_F(HttpLoopTest, advance_leaves_the_signal_mask_alone) {
    LocalServer server(echo);
    sigset_t before, after;
    pthread_sigmask(SIG_SETMASK, nullptr, &before);
    answer(loop_, request_to(server.url()));
    pthread_sigmask(SIG_SETMASK, nullptr, &after);
    for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGALRM})
        EXPECT_EQ(sigismember(&before, signal), sigismember(&after, signal));
}

TEST_F(HttpLoopTest, its_descriptor_is_not_inherited_by_programs) {
    EXPECT_TRUE(fcntl(loop_.descriptor(), F_GETFD) & FD_CLOEXEC);
}

TEST(HttpLoopEnd, transfers_in_flight_do_not_hold_it_up) {
    LocalServer server([](const ReceivedRequest&) { return CannedAnswer{.delay = 10s}; });
    const auto start = Clock::now();
    {
        HttpLoop loop{HttpOptions{}};
        for (int i = 0; i < 20; ++i)
            loop.start(request_to(server.url()));
        loop.start(request_to("http://no-such-host.invalid/"));
        EXPECT_TRUE(eventually(loop, [&] { return server.requests().size() == 20; }));
        loop.start(request_to("http://another-such-host.invalid/")); // at an early stage
        turn(loop, 0ms);
    }
    EXPECT_LT(Clock::now() - start, 4s);
}

TEST(HttpLoopEnd, kept_connections_and_the_descriptor_are_closed) {
    LocalServer server(echo);
    auto loop = std::make_unique<HttpLoop>(HttpOptions{});
    answer(*loop, request_to(server.url()));
    const auto link = "/proc/self/fd/" + std::to_string(loop->descriptor());
    const auto target = [&] {
        std::error_code none; // the number may be free, or the server's thread may have it by now
        return std::filesystem::read_symlink(link, none).string();
    };
    EXPECT_EQ(target(), "anon_inode:[eventpoll]");
    loop.reset();
    EXPECT_NE(target(), "anon_inode:[eventpoll]");
}

HttpOptions capped(std::size_t max_answer_bytes) {
    HttpOptions options;
    options.max_answer_bytes = max_answer_bytes;
    return options;
}

TEST(HttpLoopCap, an_answer_above_the_cap_is_too_large) {
    LocalServer server(
        [](const ReceivedRequest&) { return CannedAnswer{.body = std::string(8 << 20, 'x')}; });
    HttpLoop loop(capped(1 << 20));
    EXPECT_EQ(error_code(loop, request_to(server.url())), "TooLarge");
}

TEST(HttpLoopCap, headers_count_too) {
    LocalServer server([](const ReceivedRequest&) {
        return CannedAnswer{.headers = {{"x-padding", std::string(5000, 'x')}}};
    });
    HttpLoop loop(capped(4096));
    EXPECT_EQ(error_code(loop, request_to(server.url())), "TooLarge");
}

TEST(HttpLoopCap, an_answer_below_the_cap_is_whole) {
    LocalServer server(
        [](const ReceivedRequest&) { return CannedAnswer{.body = std::string(1 << 20, 'x')}; });
    HttpLoop loop(capped(2 << 20));
    EXPECT_EQ(answer(loop, request_to(server.url())).body.size(), 1u << 20);
}

TEST(HttpLoopTls, a_missing_ca_file_is_a_tls_error) {
    LocalServer server(echo);
    HttpOptions options;
    options.ca_file = "/no/such/ca.pem";
    HttpLoop loop(options);
    EXPECT_EQ(error_code(loop, request_to("https://127.0.0.1:" + std::to_string(server.port()))), "TlsError");
}

} // namespace
} // namespace sqs_ingest
