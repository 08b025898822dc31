// Where a request may go and which way: methods, proxies, addresses of metadata services, foreign
// descriptors.
#include "net/http.h"

#include "aws_environment.h"
#include "local_server.h"

#include <gtest/gtest.h>

namespace sqs_ingest {
namespace {

using namespace std::chrono_literals;
using test::CannedAnswer;
using test::LocalServer;
using test::ReceivedRequest;
using Clock = std::chrono::steady_clock;

class HttpRouteTest : public test::AwsEnvironment {
  protected:
    std::variant<HttpAnswer, TransportError> fetch(HttpRequest request) {
        request.total_timeout = 5s;
        loop_.start(std::move(request));
        for (const auto end = Clock::now() + 10s; Clock::now() < end;) {
            pollfd entry{loop_.descriptor(), POLLIN, 0};
            poll(&entry, 1, static_cast<int>(std::min(loop_.timeout().value_or(50ms), 50ms).count()));
            for (Completed& completed : loop_.advance())
                return std::move(completed.result);
        }
        throw std::runtime_error("the request did not end");
    }
    TransportError error(HttpRequest request) {
        const auto result = fetch(std::move(request));
        const auto* lost = std::get_if<TransportError>(&result);
        return lost ? *lost : TransportError{"none", ""};
    }

    static std::string nobody() { return "127.0.0.1:" + std::to_string(LocalServer::unused_port()); }

    HttpLoop loop_{HttpOptions{}};
    LocalServer server_{[](const ReceivedRequest&) { return CannedAnswer{.body = "hello"}; }};
};

TEST_F(HttpRouteTest, a_get_has_no_body_and_a_put_may_be_empty) {
    fetch({.url = server_.url() + "a", .method = HttpMethod::get});
    fetch({.url = server_.url() + "b", .method = HttpMethod::put});
    fetch({.url = server_.url() + "c",
           .headers = {{"x-name", "v"}},
           .body = "text",
           .method = HttpMethod::put});
    const auto requests = server_.requests();
    EXPECT_EQ(requests.at(0).line, "GET /a HTTP/1.1");
    EXPECT_EQ(requests.at(0).headers.at("content-length"), "") << "none was sent";
    EXPECT_EQ(requests.at(1).line, "PUT /b HTTP/1.1");
    EXPECT_EQ(requests.at(1).headers.at("content-length"), "0");
    EXPECT_FALSE(requests.at(1).headers.contains("content-type"));
    EXPECT_EQ(requests.at(2).body, "text");
    EXPECT_EQ(requests.at(2).headers.at("x-name"), "v");
}

TEST_F(HttpRouteTest, a_request_can_have_a_cap_of_its_own) {
    EXPECT_EQ(error({.url = server_.url(), .max_answer_bytes = 40}).code, "TooLarge");
    EXPECT_EQ(error({.url = server_.url(), .max_answer_bytes = 4000}).code, "none");
}

TEST_F(HttpRouteTest, http_goes_through_the_proxy_of_either_variable) {
    for (const char* name : {"HTTP_PROXY", "http_proxy"}) {
        set(name, server_.url());
        fetch({.url = "http://sqs.example.test/path"});
        EXPECT_EQ(server_.requests().back().line, "POST http://sqs.example.test/path HTTP/1.1") << name;
        EXPECT_EQ(server_.requests().back().headers.at("host"), "sqs.example.test");
        unsetenv(name);
    }
}

TEST_F(HttpRouteTest, https_asks_its_proxy_to_connect) {
    set("HTTPS_PROXY", "http://someone:pa55word@127.0.0.1:" + std::to_string(server_.port()));
    fetch({.url = "https://sqs.example.test/"});
    EXPECT_EQ(server_.requests().at(0).line, "CONNECT sqs.example.test:443 HTTP/1.1");
    EXPECT_EQ(server_.requests().at(0).headers.at("proxy-authorization"), "Basic c29tZW9uZTpwYTU1d29yZA==");
}

TEST_F(HttpRouteTest, no_proxy_is_a_way_around_it) {
    set("HTTP_PROXY", "http://" + nobody());
    EXPECT_EQ(error({.url = server_.url()}).code, "CouldNotConnect");
    set("NO_PROXY", "example.com,127.0.0.1");
    EXPECT_EQ(error({.url = server_.url()}).code, "none");
}

TEST_F(HttpRouteTest, a_request_can_refuse_every_proxy) {
    for (const char* name : {"HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"})
        set(name, "http://" + nobody());
    EXPECT_EQ(error({.url = server_.url(), .no_proxy = true}).code, "none");
}

TEST_F(HttpRouteTest, a_proxys_password_is_in_no_error) {
    for (const std::string& proxy :
         {"http://someone:pa55word@" + nobody(), std::string("gopher://someone:pa55word@127.0.0.1:1"),
          std::string("http://someone:pa55word@no-such-host.invalid:1"),
          std::string("http://someone:pa55word@[:1"), std::string("socks4://someone:pa55word@") + nobody()}) {
        set("HTTPS_PROXY", proxy);
        const TransportError failed = error({.url = "https://sqs.example.test/"});
        EXPECT_NE(failed.code, "none") << proxy;
        EXPECT_EQ(failed.message.find("pa55word"), std::string::npos) << failed.message;
        EXPECT_FALSE(failed.message.empty());
    }
}

TEST_F(HttpRouteTest, addresses_of_metadata_services_are_refused_whatever_they_are_written_as) {
    for (const char* host : {"169.254.169.254", "169.254.170.2", "169.254.1.1", "0xA9FEA9FE", "2852039166",
                             "[fe80::1]", "[fd00:ec2::254]", "[fd00:ec2::23]", "[::ffff:169.254.169.254]"})
        EXPECT_EQ(error({.url = std::string("http://") + host + "/latest/meta-data/"}).code,
                  "MetadataAddress")
            << host;
}

TEST_F(HttpRouteTest, descriptors_of_others_wake_the_loop_and_are_left_alone) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    loop_.watch(ends[0]);
    pollfd entry{loop_.descriptor(), POLLIN, 0};
    EXPECT_EQ(poll(&entry, 1, 0), 0);
    ASSERT_EQ(::write(ends[1], "x", 1), 1);
    EXPECT_EQ(poll(&entry, 1, 1000), 1);
    EXPECT_TRUE(loop_.advance().empty());
    EXPECT_EQ(poll(&entry, 1, 1000), 1) << "until its owner reads it";
    EXPECT_EQ(error({.url = server_.url()}).code, "none");
    loop_.forget(ends[0]);
    close(ends[0]);
    close(ends[1]);
}

TEST_F(HttpRouteTest, a_reserved_id_is_that_of_its_request) {
    const TransferId reserved = loop_.reserve();
    const TransferId other = loop_.start({.url = server_.url()});
    EXPECT_NE(reserved, other);
    loop_.start(reserved, {.url = server_.url()});
    EXPECT_EQ(loop_.in_flight(), 2u);
    loop_.cancel(reserved);
    EXPECT_EQ(loop_.in_flight(), 1u);
}

} // namespace
} // namespace sqs_ingest
