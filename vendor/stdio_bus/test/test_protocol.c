/* test_protocol.c - what methods and fields of MCP and ACP mean, and the frames the bus makes itself. */
#include "protocol.h"
#include "test.h"

static sb_span text(const char *literal)
{
    sb_span span = {sb_test_guarded(literal, strlen(literal)), strlen(literal)};
    return span;
}

static bool is(sb_span token, const char *want)
{
    return token.ptr != NULL && sb_span_is(token, want);
}

static void methods_mean_what_their_protocol_says(void)
{
    CHECK(sb_protocol_client_means(SB_PROTOCOL_MCP, text("\"initialize\"")) == SB_MEANS_INITIALIZE);
    CHECK(sb_protocol_client_means(SB_PROTOCOL_ACP, text("\"initialize\"")) == SB_MEANS_INITIALIZE);
    CHECK(sb_protocol_client_means(SB_PROTOCOL_MCP, text("\"session/new\"")) == SB_MEANS_NOTHING);
    CHECK(sb_protocol_client_means(SB_PROTOCOL_ACP, text("\"session/new\"")) == SB_MEANS_NEW_SESSION);
    CHECK(sb_protocol_client_means(SB_PROTOCOL_ACP, text("\"session/resume\"")) == SB_MEANS_LOAD_SESSION);
    CHECK(sb_protocol_client_means(SB_PROTOCOL_ACP, text("\"session\\/prompt\"")) == SB_MEANS_PROMPT);
    CHECK(sb_protocol_client_means(SB_PROTOCOL_NDJSON, text("\"initialize\"")) == SB_MEANS_NOTHING);
    CHECK(sb_protocol_client_means(SB_PROTOCOL_AUTO, text("\"initialize\"")) == SB_MEANS_INITIALIZE);
    CHECK(sb_protocol_client_means(SB_PROTOCOL_AUTO, text("\"session/new\"")) == SB_MEANS_NOTHING);
    CHECK(sb_protocol_client_means(SB_PROTOCOL_NDJSON, text("\"session/prompt\"")) == SB_MEANS_PROMPT);
    CHECK(sb_protocol_client_means(SB_PROTOCOL_MCP, text("\"\\u0069nitialize\"")) == SB_MEANS_INITIALIZE);
    CHECK(sb_protocol_client_means(SB_PROTOCOL_MCP, text("\"initializ\"")) == SB_MEANS_NOTHING);
    CHECK(sb_protocol_worker_means(text("\"session/request_permission\"")) == SB_MEANS_PERMISSION);
    CHECK(sb_protocol_worker_means(text("\"notifications/resources/list_changed\"")) == SB_MEANS_LIST_CHANGED);
    CHECK(sb_protocol_worker_means(text("\"session/update\"")) == SB_MEANS_NOTHING);
}

static void no_protocol_lets_a_name_of_the_other_one_pass(void)
{
    for (int i = SB_PROTOCOL_MCP; i <= SB_PROTOCOL_ACP; i++) {
        CHECK(sb_protocol_client_means((sb_protocol)i, text("\"notifications/cancelled\"")) == SB_MEANS_CANCEL);
        CHECK(sb_protocol_client_means((sb_protocol)i, text("\"$/cancel_request\"")) == SB_MEANS_CANCEL);
    }
}

static void an_absent_method_means_nothing(void)
{
    sb_span none = {NULL, 0};
    CHECK(sb_protocol_client_means(SB_PROTOCOL_MCP, none) == SB_MEANS_NOTHING);
    CHECK(sb_protocol_worker_means(none) == SB_MEANS_NOTHING);
}

static void the_version_of_an_initialize_tells_the_protocol(void)
{
    sb_span none = {NULL, 0};
    CHECK(sb_protocol_of_initialize(text("{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{}}")) == SB_PROTOCOL_MCP);
    CHECK(sb_protocol_of_initialize(text("{\"protocolVersion\":1}")) == SB_PROTOCOL_ACP);
    CHECK(sb_protocol_of_initialize(text("{\"protocolVersion\":\"2025-06-18\"}")) == SB_PROTOCOL_AUTO);
    CHECK(sb_protocol_of_initialize(text("{\"protocolVersion\":null,\"capabilities\":{}}")) == SB_PROTOCOL_AUTO);
    CHECK(sb_protocol_of_initialize(text("[1]")) == SB_PROTOCOL_AUTO);
    CHECK(sb_protocol_of_initialize(none) == SB_PROTOCOL_AUTO);
}

static void fields_are_found_where_they_have_the_right_type(void)
{
    sb_span meta = sb_protocol_meta(text("{\"a\":1,\"_meta\":{\"progressToken\":\"t\","
                                         "\"io.modelcontextprotocol/subscriptionId\":7,"
                                         "\"io.modelcontextprotocol/protocolVersion\":\"v\"}}"));
    CHECK(is(sb_protocol_asked_token(meta), "\"t\"") && is(sb_protocol_subscription(meta), "7"));
    CHECK(sb_protocol_is_stateless(meta));
    CHECK(is(sb_protocol_told_token(text("{\"progressToken\":0}")), "0"));
    CHECK(is(sb_protocol_cancelled(text("{\"requestId\":\"\"}")), "\"\""));
    CHECK(is(sb_protocol_session(text("{\"sessionId\":\"s\"}")), "\"s\""));
    CHECK(sb_protocol_session(text("{\"sessionId\":\"\"}")).ptr == NULL && sb_protocol_session(text("{\"sessionId\":1}")).ptr == NULL);
    CHECK(sb_protocol_cancelled(text("{\"requestId\":null}")).ptr == NULL && sb_protocol_cancelled(text("[]")).ptr == NULL);
    CHECK(sb_protocol_meta(text("{\"_meta\":[1]}")).ptr == NULL);
    CHECK(!sb_protocol_is_stateless(sb_protocol_meta(text("{\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":1}}"))));
}

static void frames_of_the_bus_are_json(void)
{
    sb_buf out = {0};
    CHECK(sb_protocol_put_initialize(&out, sb_span_of("3"), sb_span_of("{\"a\":1}")));
    CHECK_STR(out.data, "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"initialize\",\"params\":{\"a\":1}}");
    out.len = 0;
    CHECK(sb_protocol_put_initialized(&out));
    CHECK_STR(out.data, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}");
    out.len = 0;
    CHECK(sb_protocol_put_cancel(&out, SB_PROTOCOL_MCP, sb_span_of("\"x\"")));
    CHECK_STR(out.data, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":\"x\"}}");
    out.len = 0;
    CHECK(sb_protocol_put_cancel(&out, SB_PROTOCOL_ACP, sb_span_of("4")));
    CHECK_STR(out.data, "{\"jsonrpc\":\"2.0\",\"method\":\"$/cancel_request\",\"params\":{\"requestId\":4}}");
    out.len = 0;
    CHECK(sb_protocol_put_cancel_turn(&out, sb_span_of("a\"\n")));
    CHECK_STR(out.data, "{\"jsonrpc\":\"2.0\",\"method\":\"session/cancel\",\"params\":{\"sessionId\":\"a\\\"\\n\"}}");
    sb_buf_free(&out);
}

static const sb_test tests[] = {
    TEST(methods_mean_what_their_protocol_says),
    TEST(no_protocol_lets_a_name_of_the_other_one_pass),
    TEST(an_absent_method_means_nothing),
    TEST(the_version_of_an_initialize_tells_the_protocol),
    TEST(fields_are_found_where_they_have_the_right_type),
    TEST(frames_of_the_bus_are_json),
};

TEST_MAIN(tests)
