/* test_mcp.c - pools whose workers speak MCP: what is taken off and mapped, progress, cancellation. */
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "test_mcp.h"

/* ---- what is taken off and mapped -------------------------------------------------------------- */

static void a_pool_told_to_speak_mcp_sees_no_member_of_the_bus(void)
{
    stdio_bus_t *bus = start(MCP, 0);
    int client = connect_pair(bus);
    lands(bus, client, "{\"id\":1,\"method\":\"m\",\"sessionId\":\"s\",\"pool\":\"p\",\"agentId\":\"a\",\"_ext\":{\"i\":1}}", played,
          "{\"params\":{\"_meta\":{\"stdio_bus/ext\":{\"i\":1}}},\"id\":1,\"method\":\"m\"}");
    lands(bus, client, "{\"_ext\":1,\"method\":\"m\",\"params\":{}}", played,
          "{\"method\":\"m\",\"params\":{\"_meta\":{\"stdio_bus/ext\":1}}}");
    lands(bus, client, "{\"method\":\"m\",\"params\":{\"a\":1,\"_meta\":{\"b\":2}},\"_ext\":1}", played,
          "{\"method\":\"m\",\"params\":{\"a\":1,\"_meta\":{\"stdio_bus/ext\":1,\"b\":2}}}");
    lands(bus, client, "{\"method\":\"m\",\"params\":[],\"_ext\":1}", played, "{\"method\":\"m\",\"params\":[]}");
    finish(bus);
}

static void a_pool_that_found_out_keeps_the_agent(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int client = introduce(bus);
    lands(bus, client, "{\"id\":1,\"method\":\"m\",\"sessionId\":\"s\",\"pool\":\"p\",\"agentId\":\"a\",\"_ext\":1}", played,
          "{\"id\":2,\"method\":\"m\",\"agentId\":\"a\",\"_ext\":1}");
    finish(bus);
}

static void progress_reaches_who_asked_under_its_own_token(void)
{
    stdio_bus_t *bus = start(MCP, 0);
    int one = connect_pair(bus), two = connect_pair(bus);
    lands(bus, one, "{\"id\":0,\"method\":\"tools/call\",\"params\":{\"_meta\":{\"progressToken\":0},\"name\":\"a\"}}", played,
          "{\"id\":1,\"method\":\"tools/call\",\"params\":{\"_meta\":{\"progressToken\":1},\"name\":\"a\"}}");
    lands(bus, two, "{\"id\":0,\"method\":\"tools/call\",\"params\":{\"_meta\":{\"progressToken\":\"t\\u0061\"}}}", played,
          "{\"id\":2,\"method\":\"tools/call\",\"params\":{\"_meta\":{\"progressToken\":2}}}");
    worker_says("{\"method\":\"notifications/progress\",\"params\":{\"progressToken\":2,\"progress\":1}}\n"
                "{\"method\":\"notifications/progress\",\"params\":{\"progressToken\":1,\"progress\":1}}\n");
    client_hears(bus, two, "{\"method\":\"notifications/progress\",\"params\":{\"progressToken\":\"t\\u0061\",\"progress\":1}}\n");
    client_hears(bus, one, "{\"method\":\"notifications/progress\",\"params\":{\"progressToken\":0,\"progress\":1}}\n");
    worker_says("{\"id\":1,\"result\":0}\n{\"method\":\"notifications/progress\",\"params\":{\"progressToken\":1}}\n"
                "{\"id\":2,\"result\":0}\n");
    client_hears(bus, one, "{\"id\":0,\"result\":0}\n");
    client_hears(bus, two, "{\"id\":0,\"result\":0}\n");
    CHECK(ext_stats(bus).late_answers == 1);
    finish(bus);
}

static void progress_of_a_client_reaches_the_worker_that_asked(void)
{
    stdio_bus_t *bus = start(MCP, 0);
    worker_t other = embed(bus, "p");
    int client = connect_pair(bus);
    lands(bus, client, "{\"id\":1,\"method\":\"m\",\"sessionId\":\"a\"}", played, "{\"id\":1,\"method\":\"m\"}");
    lands(bus, client, "{\"id\":2,\"method\":\"m\",\"sessionId\":\"b\"}", other, "{\"id\":1,\"method\":\"m\"}");
    says(played, "{\"id\":0,\"method\":\"sampling/createMessage\",\"params\":{\"_meta\":{\"progressToken\":0}}}\n");
    client_hears(bus, client, "{\"id\":1,\"method\":\"sampling/createMessage\",\"params\":{\"_meta\":{\"progressToken\":1}}}\n");
    says(other, "{\"id\":0,\"method\":\"sampling/createMessage\",\"params\":{\"_meta\":{\"progressToken\":0}}}\n");
    client_hears(bus, client, "{\"id\":2,\"method\":\"sampling/createMessage\",\"params\":{\"_meta\":{\"progressToken\":2}}}\n");
    lands(bus, client, "{\"method\":\"notifications/progress\",\"params\":{\"progressToken\":2,\"progress\":1}}", other,
          "{\"method\":\"notifications/progress\",\"params\":{\"progressToken\":0,\"progress\":1}}");
    lands(bus, client, "{\"id\":1,\"result\":0}", played, "{\"id\":0,\"result\":0}");
    /* Nobody waits for that any more. */
    tells(client, "{\"method\":\"notifications/progress\",\"params\":{\"progressToken\":1,\"progress\":2}}");
    STEP_UNTIL(bus, ext_stats(bus).dropped_frames == 1);
    finish(bus);
}

static void a_subscription_is_known_by_its_requesters_id(void)
{
    stdio_bus_t *bus = start(MCP, 0);
    int one = connect_pair(bus), two = connect_pair(bus);
    lands(bus, one, "{\"id\":0,\"method\":\"subscriptions/listen\"}", played, "{\"id\":1,\"method\":\"subscriptions/listen\"}");
    lands(bus, two, "{\"id\":0,\"method\":\"subscriptions/listen\"}", played, "{\"id\":2,\"method\":\"subscriptions/listen\"}");
    worker_says("{\"method\":\"n\",\"params\":{\"_meta\":{\"io.modelcontextprotocol/subscriptionId\":2}}}\n");
    client_hears(bus, two, "{\"method\":\"n\",\"params\":{\"_meta\":{\"io.modelcontextprotocol/subscriptionId\":0}}}\n");
    worker_says("{\"method\":\"n\",\"params\":{\"_meta\":{\"io.modelcontextprotocol/subscriptionId\":1}}}\n");
    client_hears(bus, one, "{\"method\":\"n\",\"params\":{\"_meta\":{\"io.modelcontextprotocol/subscriptionId\":0}}}\n");
    finish(bus);
}

static void a_subscription_that_a_client_names_is_the_workers(void)
{
    stdio_bus_t *bus = start(MCP, 0);
    int one = connect_pair(bus), two = connect_pair(bus);
    lands(bus, one, "{\"id\":0,\"method\":\"m\"}", played, "{\"id\":1,\"method\":\"m\"}");
    lands(bus, two, "{\"id\":0,\"method\":\"subscriptions/listen\"}", played, "{\"id\":2,\"method\":\"subscriptions/listen\"}");
    lands(bus, two, "{\"id\":5,\"method\":\"m\",\"params\":{\"_meta\":{\"io.modelcontextprotocol/subscriptionId\":0}}}", played,
          "{\"id\":3,\"method\":\"m\",\"params\":{\"_meta\":{\"io.modelcontextprotocol/subscriptionId\":2}}}");
    finish(bus);
}

static void a_changed_list_concerns_every_client_of_the_worker(void)
{
    static const char changed[] = "{\"method\":\"notifications/tools/list_changed\"}\n";
    stdio_bus_t *bus = start(MCP, 0);
    int one = introduce(bus), two = connect_pair(bus);
    lands(bus, one, "{\"method\":\"a\"}", played, "{\"method\":\"a\"}");
    lands(bus, two, "{\"method\":\"b\"}", played, "{\"method\":\"b\"}");
    worker_says(changed);
    client_hears(bus, one, changed);
    client_hears(bus, two, changed);
    finish(bus);
}

static void what_could_be_for_several_is_nobodys_and_a_question_is_answered_at_once(void)
{
    stdio_bus_t *bus = start(MCP, 0);
    int one = introduce(bus), two = connect_pair(bus);
    lands(bus, one, "{\"method\":\"a\"}", played, "{\"method\":\"a\"}");
    lands(bus, two, "{\"method\":\"b\"}", played, "{\"method\":\"b\"}");
    worker_says("{\"method\":\"notifications/message\"}\n{\"id\":0,\"method\":\"roots/list\"}\n{\"id\":1,\"method\":\"ping\"}\n");
    CHECK(strstr(worker_reads(bus), "\"id\":0,\"error\":{\"code\":-32601") != NULL);
    CHECK_STR(worker_reads(bus), "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}");
    CHECK(ext_stats(bus).unattributed_frames == 3);
    finish(bus);
}

static void what_follows_a_cancel_is_guessed_to_be_for_nobody_else(void)
{
    static const char news[] = "{\"method\":\"notifications/message\"}\n";
    stdio_bus_t *bus = start(MCP, 0);
    int one = connect_pair(bus), two = connect_pair(bus);
    lands(bus, one, "{\"id\":1,\"method\":\"m\"}", played, "{\"id\":1,\"method\":\"m\"}");
    lands(bus, two, "{\"id\":1,\"method\":\"m\"}", played, "{\"id\":2,\"method\":\"m\"}");
    lands(bus, one, "{\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":1}}", played,
          "{\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":1}}");
    worker_says(news);
    STEP_UNTIL(bus, ext_stats(bus).unattributed_frames == 1);
    /* Once it has answered there is no more to come. */
    worker_says("{\"id\":1,\"error\":{}}\n");
    worker_says(news);
    client_hears(bus, two, news);
    /* Of its own client's it may be. */
    lands(bus, two, "{\"id\":3,\"method\":\"m\"}", played, "{\"id\":3,\"method\":\"m\"}");
    lands(bus, two, "{\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":3}}", played,
          "{\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":3}}");
    worker_says(news);
    client_hears(bus, two, news);
    close(two);
    CHECK(strstr(worker_reads(bus), "cancelled") != NULL);
    worker_says(news);
    STEP_UNTIL(bus, ext_stats(bus).unattributed_frames == 2);
    finish(bus);
}

/* ---- cancellation ------------------------------------------------------------------------------- */

static void a_clients_cancel_names_the_workers_id(void)
{
    stdio_bus_t *bus = start(MCP, 0);
    int one = connect_pair(bus), two = connect_pair(bus);
    lands(bus, one, "{\"id\":0,\"method\":\"m\"}", played, "{\"id\":1,\"method\":\"m\"}");
    lands(bus, two, "{\"id\":0,\"method\":\"m\"}", played, "{\"id\":2,\"method\":\"m\"}");
    lands(bus, two, "{\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":0,\"reason\":\"r\"},\"pool\":\"p\"}", played,
          "{\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":2,\"reason\":\"r\"}}");
    CHECK(stdio_bus_pending_count(bus) == 1);
    worker_says("{\"id\":2,\"result\":0}\n{\"id\":1,\"result\":0}\n");
    client_hears(bus, one, "{\"id\":0,\"result\":0}\n");
    CHECK(ext_stats(bus).late_answers == 1 && ext_stats(bus).tombstones == 0);
    finish(bus);
}

static void an_answered_ping_ends_the_aftermath_of_a_cancel(void)
{
    static const char news[] = "{\"method\":\"notifications/message\"}\n";
    stdio_bus_t *bus = start(MCP, 0);
    int one = introduce(bus), two = connect_pair(bus);
    lands(bus, one, "{\"id\":1,\"method\":\"m\"}", played, "{\"id\":2,\"method\":\"m\"}");
    lands(bus, two, "{\"id\":1,\"method\":\"m\"}", played, "{\"id\":3,\"method\":\"m\"}");
    close(one);
    CHECK_STR(worker_reads(bus), "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":2}}");
    CHECK_STR(worker_reads(bus), "{\"jsonrpc\":\"2.0\",\"id\":4,\"method\":\"ping\"}");
    worker_says("{\"id\":0,\"method\":\"sampling/createMessage\"}\n");
    CHECK(strstr(worker_reads(bus), "\"id\":0,\"error\":{\"code\":-32601") != NULL);
    worker_says("{\"id\":4,\"result\":{}}\n");
    worker_says(news);
    client_hears(bus, two, news);
    CHECK(ext_stats(bus).tombstones == 0);
    worker_says("{\"id\":2,\"result\":{}}\n");
    STEP_UNTIL(bus, ext_stats(bus).late_answers == 1);
    finish(bus);
}

static void without_a_handshake_nothing_is_guessed(void)
{
    stdio_bus_t *bus = start(MCP, 0);
    int client = connect_pair(bus);
    lands(bus, client, "{\"id\":0,\"method\":\"m\",\"params\":{\"_meta\":{" META "}}}", played,
          "{\"id\":1,\"method\":\"m\",\"params\":{\"_meta\":{" META "}}}");
    worker_says("{\"id\":1,\"result\":0}\n{\"method\":\"notifications/message\"}\n");
    client_hears(bus, client, "{\"id\":0,\"result\":0}\n");
    STEP_UNTIL(bus, ext_stats(bus).unattributed_frames == 1);
    finish(bus);
}

static void a_cancel_of_nothing_is_swallowed_and_counted(void)
{
    stdio_bus_t *bus = start(MCP, 0);
    int one = connect_pair(bus), two = connect_pair(bus);
    lands(bus, one, "{\"id\":1,\"method\":\"m\"}", played, "{\"id\":1,\"method\":\"m\"}");
    tells(two, "{\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":1}}");
    tells(two, "{\"method\":\"$/cancel_request\",\"params\":{\"requestId\":1}}");
    STEP_UNTIL(bus, ext_stats(bus).stale_cancels == 2);
    worker_says("{\"id\":1,\"result\":0}\n");
    client_hears(bus, one, "{\"id\":1,\"result\":0}\n");
    finish(bus);
}

static void what_a_client_leaves_behind_is_cancelled(void)
{
    stdio_bus_t *bus = start(MCP, 0);
    int client = connect_pair(bus);
    lands(bus, client, "{\"id\":\"q\",\"method\":\"m\"}", played, "{\"id\":1,\"method\":\"m\"}");
    close(client);
    CHECK_STR(worker_reads(bus), "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":1}}");
    CHECK(stdio_bus_pending_count(bus) == 0);
    finish(bus);
}

static void an_end_of_input_is_a_departure(void)
{
    stdio_bus_t *bus = start(MCP, 0);
    int client = connect_pair(bus);
    lands(bus, client, "{\"id\":\"q\",\"method\":\"m\"}", played, "{\"id\":1,\"method\":\"m\"}");
    CHECK(shutdown(client, SHUT_WR) == 0);
    CHECK(strstr(worker_reads(bus), "notifications/cancelled") != NULL);
    CHECK(client_line(bus, client) == NULL);
    CHECK_STR(seen.reason, "closed");
    finish(bus);
}

static void what_a_client_gives_up_at_the_bus_is_cancelled(void)
{
    stdio_bus_t *bus = start(MCP, 0);
    int client = introduce(bus);
    lands(bus, client, "{\"id\":\"q\",\"method\":\"tools/call\"}", played, "{\"id\":2,\"method\":\"tools/call\"}");
    lands(bus, client, "{\"method\":\"stdio_bus/cancel\",\"params\":{\"requestId\":\"q\"}}", played,
          "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":2}}");
    CHECK(stdio_bus_pending_count(bus) == 0);
    finish(bus);
}

static void what_the_host_gives_up_is_cancelled(void)
{
    stdio_bus_t *bus = start(MCP, 0);
    CHECK(ingest(bus, "{\"id\":\"q\",\"method\":\"m\"}") == STDIO_BUS_OK);
    CHECK_STR(worker_reads(bus), "{\"id\":1,\"method\":\"m\"}");
    CHECK(stdio_bus_cancel(bus, "\"q\"", 3) == STDIO_BUS_OK);
    CHECK_STR(worker_reads(bus), "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":1}}");
    CHECK(stdio_bus_cancel(bus, "\"q\"", 3) == STDIO_BUS_ENOTFOUND);
    finish(bus);
}

static void a_queued_request_that_is_cancelled_is_never_sent(void)
{
    stdio_bus_t *bus = start(MCP, 0);
    int client = connect_pair(bus);
    lands(bus, client, INITIALIZE("0"), played, INITIALIZE("1"));
    tells(client, "{\"id\":1,\"method\":\"m\"}");
    tells(client, "{\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":1}}");
    tells(client, "{\"id\":2,\"method\":\"n\"}");
    STEP_UNTIL(bus, stdio_bus_pending_count(bus) == 2);
    worker_says(ANSWER("1", RESULT));
    CHECK_STR(worker_reads(bus), INITIALIZED);
    CHECK_STR(worker_reads(bus), "{\"id\":2,\"method\":\"n\"}");
    finish(bus);
}

static void a_workers_cancel_reaches_the_client_it_had_asked(void)
{
    stdio_bus_t *bus = start(MCP, 0);
    int client = connect_pair(bus);
    lands(bus, client, "{\"id\":1,\"method\":\"m\"}", played, "{\"id\":1,\"method\":\"m\"}");
    worker_says("{\"id\":9,\"method\":\"sampling/createMessage\"}\n");
    client_hears(bus, client, "{\"id\":1,\"method\":\"sampling/createMessage\"}\n");
    worker_says("{\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":9}}\n");
    client_hears(bus, client, "{\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":1}}\n");
    worker_says("{\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":9}}\n");
    STEP_UNTIL(bus, ext_stats(bus).stale_cancels == 1);
    tells(client, "{\"id\":1,\"result\":0}");
    STEP_UNTIL(bus, ext_stats(bus).late_answers == 1);
    finish(bus);
}

static void a_question_of_a_worker_that_dies_is_withdrawn(void)
{
    stdio_bus_t *bus = start(MCP, 0);
    int client = connect_pair(bus);
    lands(bus, client, "{\"id\":1,\"method\":\"m\"}", played, "{\"id\":1,\"method\":\"m\"}");
    worker_says("{\"id\":0,\"method\":\"elicitation/create\"}\n");
    client_hears(bus, client, "{\"id\":1,\"method\":\"elicitation/create\"}\n");
    goes(played);
    CHECK(strstr(client_line(bus, client), "\"id\":1,\"error\":{\"code\":-32011") != NULL);
    client_hears(bus, client, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":1}}\n");
    tells(client, "{\"id\":1,\"result\":{\"action\":\"accept\"}}");
    STEP_UNTIL(bus, ext_stats(bus).late_answers == 1);
    finish(bus);
}

static void the_host_is_told_what_belongs_to_which_request(void)
{
    stdio_bus_t *bus = create_with_frames(MCP, 0);
    start_created(bus);
    CHECK(ingest(bus, "{\"id\":\"a\",\"method\":\"m\",\"params\":{\"_meta\":{\"progressToken\":\"longer than the number\"}}}") == 0);
    CHECK(worker_reads(bus) != NULL);
    worker_says("{\"method\":\"notifications/progress\",\"sessionId\":\"s\",\"params\":{\"progressToken\":1}}\n");
    worker_says("{\"params\":{\"progressToken\":1},\"method\":\"notifications/progress\",\"sessionId\":\"s\"}\n");
    STEP_UNTIL(bus, seen.count == 2);
    for (int i = 0; i < 2; i++) {
        CHECK_STR(seen.frame[i].request, "\"a\"");
        CHECK_STR(seen.frame[i].session, "\"s\"");
        CHECK(strstr(seen.frame[i].text, "longer than the number") != NULL);
    }
    finish(bus);
}

/* ---- bounds ----------------------------------------------------------------------------------- */

#define NARROW(more) LIMITED(DEAD_WITH("p", "\"protocol\":\"mcp\""), "\"max_output_queue\":65536" more)

static void what_names_a_request_again_and_again_does_not_pile_up(void)
{
    stdio_bus_t *bus = start(NARROW(""), 0);
    int client = connect_pair(bus);
    lands(bus, client, "{\"id\":0,\"method\":\"m\"}", played, "{\"id\":1,\"method\":\"m\"}");
    for (int i = 0; i < 4000; i++) {
        tells(client, "{\"method\":\"$/cancel_request\",\"params\":{\"requestId\":0}}");
        if (i % 100 == 0) CHECK(stdio_bus_step(bus, 0) >= 0);
        seen.events = 0;
    }
    STEP_UNTIL(bus, ext_stats(bus).dropped_frames > 0);
    CHECK(ext_stats(bus).outbox_bytes <= 65536);
    finish(bus);
}

static void what_a_worker_is_refused_does_not_pile_up_when_it_does_not_read(void)
{
    stdio_bus_t *bus = start(NARROW(""), 0);
    for (int i = 0; i < 4000; i++) {
        worker_says("{\"id\":0,\"method\":\"m\",\"params\":{\"_meta\":{\"io.modelcontextprotocol/subscriptionId\":5}}}\n");
        if (i % 100 == 0) CHECK(stdio_bus_step(bus, 0) >= 0);
        seen.events = 0;
    }
    STEP_UNTIL(bus, ext_stats(bus).dropped_frames > 0);
    CHECK(ext_stats(bus).outbox_bytes <= 65536);
    finish(bus);
}

static void a_worker_may_ask_no_more_at_once_than_may_be_pending(void)
{
    stdio_bus_t *bus = start(NARROW(",\"max_pending\":2"), 0);
    int client = connect_pair(bus);
    lands(bus, client, "{\"id\":0,\"method\":\"m\"}", played, "{\"id\":1,\"method\":\"m\"}");
    worker_says("{\"id\":1,\"method\":\"q\"}\n{\"id\":2,\"method\":\"q\"}\n{\"id\":3,\"method\":\"q\"}\n");
    CHECK(strstr(worker_reads(bus), "\"id\":3,\"error\":") != NULL);
    client_hears(bus, client, "{\"id\":1,\"method\":\"q\"}\n");
    client_hears(bus, client, "{\"id\":2,\"method\":\"q\"}\n");
    finish(bus);
}

/* A conversation with everything in it, of which nothing is expected but that it harms nobody. */
static void converse(stdio_bus_t *bus, worker_t worker)
{
    static const char *const host[] = {
        INITIALIZE("\"an id that is longer than a text holds without memory\""),
        "{\"id\":1,\"method\":\"m\",\"_ext\":1,\"params\":{\"_meta\":{\"progressToken\":\"a token longer than twenty bytes\"}}}",
        "{\"id\":2,\"method\":\"m\",\"sessionId\":\"a session with a name of some length\"}",
        "{\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":1}}",
    };
    static const char *const answers[] = {
        ANSWER("1", RESULT),
        "{\"method\":\"notifications/progress\",\"params\":{\"progressToken\":2}}\n",
        "{\"id\":\"a question with an id of some length\",\"method\":\"q\",\"params\":{\"_meta\":{\"progressToken\":\"and a long token, too\"}}}\n",
        "{\"id\":4711,\"method\":\"ping\",\"sessionId\":\"nobody's\"}\n",
    };
    ssize_t ignored;
    for (size_t i = 0; i < SB_COUNT(host); i++) {
        ingest(bus, host[i]);
        /* It may have been ended for want of memory. */
        ignored = write(worker.out, answers[i], strlen(answers[i]));
        (void)ignored;
        for (int turn = 0; turn < 3; turn++) CHECK(stdio_bus_step(bus, 0) >= 0);
    }
    stdio_bus_cancel(bus, "2", 1);
    CHECK(stdio_bus_step(bus, 0) >= 0);
}

static void a_conversation_survives_every_failing_allocation(void)
{
    size_t made = SIZE_MAX;
    signal(SIGPIPE, SIG_IGN);
    for (size_t n = 1; n <= made; n++) {
        stdio_bus_t *bus = start(MCP, 0);
        CHECK(n < 1000);
        sb_test_fail_alloc(n, false);
        converse(bus, played);
        made = sb_test_fail_alloc(0, false);
        goes(played);
        STEP_UNTIL(bus, stdio_bus_worker_count(bus) == 0);
        CHECK(stdio_bus_pending_count(bus) == 0);
        finish(bus);
        memset(&seen, 0, sizeof seen);
    }
}

/* What is asked while allocation number `n` fails is answered by the host, or declined. Returns how many were made. */
static size_t asks_the_host(size_t n)
{
    stdio_bus_t *bus = start(MCP, 0);
    size_t made;
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
    CHECK(worker_reads(bus) != NULL);
    worker_says("{\"id\":\"a question with an id of some length\",\"method\":\"q\"}\n");
    sb_test_fail_alloc(n, false);
    CHECK(stdio_bus_step(bus, 20) >= 0);
    made = sb_test_fail_alloc(0, false);
    if (seen.count == 1) CHECK(ingest(bus, "{\"id\":1,\"result\":0}") == STDIO_BUS_OK);
    CHECK(strstr(worker_reads(bus), "\"id\":\"a question") != NULL);
    finish(bus);
    memset(&seen, 0, sizeof seen);
    return made;
}

static void a_question_that_the_host_cannot_be_asked_is_declined(void)
{
    size_t made = SIZE_MAX;
    for (size_t n = 1; n <= made; n++) made = asks_the_host(n);
}

static void a_pool_that_is_replaced_passes_its_handshake_on(void)
{
    stdio_bus_t *bus = start(MCP, 0);
    int client = introduce(bus);
    worker_t fresh;
    CHECK(stdio_bus_reload(bus, NULL, POOLS(DEAD_WITH("p", "\"protocol\":\"mcp\",\"env\":{\"A\":\"b\"}"))) == STDIO_BUS_OK);
    fresh = embed(bus, "p");
    CHECK_STR(reads(bus, fresh), INITIALIZE("1"));
    says(fresh, ANSWER("1", RESULT));
    CHECK_STR(reads(bus, fresh), INITIALIZED);
    lands(bus, client, "{\"id\":1,\"method\":\"tools/call\"}", fresh, "{\"id\":2,\"method\":\"tools/call\"}");
    finish(bus);
}

static void a_pool_that_is_told_what_it_had_found_out_passes_its_handshake_on(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int client = introduce(bus);
    worker_t fresh;
    CHECK(stdio_bus_reload(bus, NULL, MCP) == STDIO_BUS_OK);
    fresh = embed(bus, "p");
    CHECK_STR(reads(bus, fresh), INITIALIZE("1"));
    says(fresh, ANSWER("1", RESULT));
    CHECK_STR(reads(bus, fresh), INITIALIZED);
    lands(bus, client, "{\"id\":1,\"method\":\"tools/call\"}", fresh, "{\"id\":2,\"method\":\"tools/call\"}");
    finish(bus);
}

static void an_initialize_that_tells_no_protocol_is_none_of_the_pools(void)
{
    stdio_bus_t *bus = start(POOLS(DEAD_WITH("p", "\"initialize\":{\"clientInfo\":{}}")), 0);
    int client = introduce(bus);
    lands(bus, client, "{\"id\":0,\"method\":\"tools/list\"}", played, "{\"id\":2,\"method\":\"tools/list\"}");
    CHECK(seen.logs[2] >= 1);
    finish(bus);
}

static void what_means_nothing_to_a_plain_pool_cancels_nothing_in_its_queue(void)
{
    /* Ends at once, so that messages wait for the next start. */
    stdio_bus_t *bus = create(LIMITED("{\"id\":\"p\",\"command\":\"false\"}", "\"max_restarts\":1000"), 0);
    worker_t worker;
    CHECK(bus != NULL && stdio_bus_start(bus) == STDIO_BUS_OK);
    STEP_UNTIL(bus, worker_info(bus, 0).state == STDIO_BUS_WORKER_BACKOFF);
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
    CHECK(ingest(bus, "{\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":1}}") == STDIO_BUS_OK);
    worker = embed(bus, "p");
    CHECK_STR(reads(bus, worker), "{\"id\":1,\"method\":\"m\"}");
    CHECK_STR(reads(bus, worker), "{\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":1}}");
    says(worker, "{\"id\":1,\"result\":0}\n");
    STEP_UNTIL(bus, seen.count == 1);
    finish(bus);
}

static const sb_test tests[] = {
    TEST(a_pool_told_to_speak_mcp_sees_no_member_of_the_bus),
    TEST(a_pool_that_found_out_keeps_the_agent),
    TEST(progress_reaches_who_asked_under_its_own_token),
    TEST(progress_of_a_client_reaches_the_worker_that_asked),
    TEST(a_subscription_is_known_by_its_requesters_id),
    TEST(a_subscription_that_a_client_names_is_the_workers),
    TEST(a_changed_list_concerns_every_client_of_the_worker),
    TEST(what_could_be_for_several_is_nobodys_and_a_question_is_answered_at_once),
    TEST(what_follows_a_cancel_is_guessed_to_be_for_nobody_else),
    TEST(a_clients_cancel_names_the_workers_id),
    TEST(an_answered_ping_ends_the_aftermath_of_a_cancel),
    TEST(without_a_handshake_nothing_is_guessed),
    TEST(a_cancel_of_nothing_is_swallowed_and_counted),
    TEST(what_a_client_leaves_behind_is_cancelled),
    TEST(an_end_of_input_is_a_departure),
    TEST(what_a_client_gives_up_at_the_bus_is_cancelled),
    TEST(what_the_host_gives_up_is_cancelled),
    TEST(a_queued_request_that_is_cancelled_is_never_sent),
    TEST(a_workers_cancel_reaches_the_client_it_had_asked),
    TEST(a_question_of_a_worker_that_dies_is_withdrawn),
    TEST(a_conversation_survives_every_failing_allocation),
    TEST(what_names_a_request_again_and_again_does_not_pile_up),
    TEST(what_a_worker_is_refused_does_not_pile_up_when_it_does_not_read),
    TEST(a_worker_may_ask_no_more_at_once_than_may_be_pending),
    TEST(a_question_that_the_host_cannot_be_asked_is_declined),
    TEST(a_pool_that_is_replaced_passes_its_handshake_on),
    TEST(a_pool_that_is_told_what_it_had_found_out_passes_its_handshake_on),
    TEST(an_initialize_that_tells_no_protocol_is_none_of_the_pools),
    TEST(what_means_nothing_to_a_plain_pool_cancels_nothing_in_its_queue),
    TEST(the_host_is_told_what_belongs_to_which_request),
};

TEST_MAIN(tests)
