/* test_handshake.c - one handshake of MCP for all clients of a pool, and which kind of MCP it speaks. */
#include <unistd.h>

#include "test_mcp.h"

/* ---- the handshake --------------------------------------------------------------------- */

static void the_first_initialize_decides_and_later_ones_are_answered_from_the_record(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int first = introduce(bus), second = connect_pair(bus);
    tells(first, INITIALIZED);
    tells(second, INITIALIZE("\"x\\u0061\""));
    client_hears(bus, second, ANSWER("\"x\\u0061\"", RESULT));
    tells(second, INITIALIZED);
    /* What the worker reads next is the first thing that is a request of theirs. */
    lands(bus, second, "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"tools/list\"}", played,
          "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"tools/list\"}");
    finish(bus);
}

static void what_a_pool_has_found_out_it_speaks_no_later_client_changes(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int client;
    introduce(bus);
    client = connect_pair(bus);
    tells(client, "{\"id\":0,\"method\":\"initialize\",\"params\":{\"protocolVersion\":1}}");
    CHECK(strstr(client_line(bus, client), "wrong_protocol") != NULL);
    /* To an agent it would open a session. */
    lands(bus, client, "{\"id\":1,\"method\":\"session/new\"}", played, "{\"id\":2,\"method\":\"session/new\"}");
    worker_says("{\"id\":2,\"result\":{\"sessionId\":\"a\"}}\n");
    client_hears(bus, client, "{\"id\":1,\"result\":{\"sessionId\":\"a\"}}\n");
    CHECK(stdio_bus_session_count(bus) == 1);
    finish(bus);
}

static void clients_that_initialize_at_once_share_one_handshake(void)
{
    stdio_bus_t *bus = start(MCP, 0);
    int first = connect_pair(bus), second = connect_pair(bus);
    lands(bus, first, INITIALIZE("7"), played, INITIALIZE("1"));
    tells(second, INITIALIZE("7"));
    tells(second, "{\"jsonrpc\":\"2.0\",\"id\":8,\"method\":\"tools/list\"}");
    STEP_UNTIL(bus, stdio_bus_pending_count(bus) == 3);
    worker_says(ANSWER("1", RESULT));
    client_hears(bus, first, ANSWER("7", RESULT));
    client_hears(bus, second, ANSWER("7", RESULT));
    CHECK_STR(worker_reads(bus), INITIALIZED);
    CHECK_STR(worker_reads(bus), "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"tools/list\"}");
    finish(bus);
}

static void every_worker_is_initialized_before_anything_else(void)
{
    stdio_bus_t *bus = start(MCP, 0);
    worker_t other = embed(bus, "p"), late;
    int client = introduce(bus);
    CHECK_STR(reads(bus, other), INITIALIZE("1"));
    says(other, ANSWER("1", RESULT));
    CHECK_STR(reads(bus, other), INITIALIZED);
    goes(played);
    goes(other);
    STEP_UNTIL(bus, stdio_bus_worker_count(bus) == 0);
    late = embed(bus, "p");
    CHECK_STR(reads(bus, late), INITIALIZE("1"));
    CHECK(worker_info(bus, late.id).state == STDIO_BUS_WORKER_STARTING);
    tells(client, "{\"id\":1,\"method\":\"tools/call\"}");
    STEP_UNTIL(bus, stdio_bus_pending_count(bus) == 1);
    says(late, ANSWER("1", RESULT));
    CHECK_STR(reads(bus, late), INITIALIZED);
    CHECK_STR(reads(bus, late), "{\"id\":2,\"method\":\"tools/call\"}");
    finish(bus);
}

static void a_pool_with_an_initialize_of_its_own_uses_that(void)
{
    stdio_bus_t *bus = create(POOLS(DEAD_WITH("p", "\"initialize\":{\"protocolVersion\":\"2025-06-18\",\n\"capabilities\":{}}")), 0);
    int client;
    start_created(bus);
    CHECK_STR(worker_reads(bus), "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":"
                                 "{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{}}}");
    worker_says(ANSWER("1", RESULT));
    CHECK_STR(worker_reads(bus), INITIALIZED);
    client = connect_pair(bus);
    tells(client, INITIALIZE("5"));
    client_hears(bus, client, ANSWER("5", RESULT));
    finish(bus);
}

static void a_refused_initialize_is_told_and_the_next_client_may_try(void)
{
    stdio_bus_t *bus = start(MCP, 0);
    int first = connect_pair(bus), second = connect_pair(bus);
    lands(bus, first, INITIALIZE("7"), played, INITIALIZE("1"));
    tells(second, INITIALIZE("8"));
    STEP_UNTIL(bus, stdio_bus_pending_count(bus) == 2);
    worker_says("{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32602,\"message\":\"no\"}}\n");
    client_hears(bus, first, "{\"jsonrpc\":\"2.0\",\"id\":7,\"error\":{\"code\":-32602,\"message\":\"no\"}}\n");
    CHECK_STR(worker_reads(bus), INITIALIZE("2"));
    worker_says(ANSWER("2", RESULT));
    client_hears(bus, second, ANSWER("8", RESULT));
    finish(bus);
}

static void a_client_that_leaves_during_its_handshake_leaves_it_to_the_others(void)
{
    stdio_bus_t *bus = start(MCP, 0);
    int first = connect_pair(bus), second;
    lands(bus, first, INITIALIZE("7"), played, INITIALIZE("1"));
    close(first);
    STEP_UNTIL(bus, stdio_bus_client_count(bus) == 0);
    worker_says(ANSWER("1", RESULT));
    CHECK_STR(worker_reads(bus), INITIALIZED);
    second = connect_pair(bus);
    tells(second, INITIALIZE("8"));
    client_hears(bus, second, ANSWER("8", RESULT));
    finish(bus);
}

static bool has_seen(const char *text)
{
    for (int i = 0; i < seen.count; i++) {
        if (strstr(seen.frame[i].text, text) != NULL) return true;
    }
    return false;
}

static void a_worker_that_does_not_answer_initialize_is_replaced(void)
{
    static const char config[] =
        POOLS("{\"id\":\"p\",\"command\":\"cat\",\"args\":[\"/dev/null\",\"-\"],\"protocol\":\"mcp\",\"init_timeout_sec\":1,"
              "\"initialize\":" PARAMS "}");
    stdio_bus_t *bus = create(config, 0);
    CHECK(stdio_bus_start(bus) == STDIO_BUS_OK && ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
    /* cat says its initialize back: a request that nobody can answer, and no answer. */
    STEP_UNTIL(bus, events_of(STDIO_BUS_EVENT_WORKER_STARTED) == 2);
    CHECK(events_of(STDIO_BUS_EVENT_WORKER_READY) == 0 && events_of(STDIO_BUS_EVENT_WORKER_STOPPED) == 1);
    CHECK(strstr(seen.log[3], "has not answered initialize for 1 s") != NULL);
    STEP_UNTIL(bus, has_seen("in time: one has not answered initialize\""));
    finish(bus);
}

static void a_worker_that_writes_something_else_than_json_instead_is_said_to(void)
{
    static const char config[] =
        POOLS("{\"id\":\"p\",\"command\":\"sh\",\"args\":[\"-c\",\"read line; echo Usage; cat >/dev/null\"],\"protocol\":\"mcp\","
              "\"init_timeout_sec\":1,\"initialize\":" PARAMS "}");
    stdio_bus_t *bus = create(config, 0);
    CHECK(stdio_bus_start(bus) == STDIO_BUS_OK && ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
    STEP_UNTIL(bus, has_seen("one writes what is no JSON-RPC to stdout, and has not answered initialize\""));
    finish(bus);
}

/* ---- eras ---------------------------------------------------------------------------------- */

static void a_pool_that_has_answered_without_a_handshake_takes_none(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int client = connect_pair(bus), old = connect_pair(bus);
    lands(bus, client, "{\"id\":0,\"method\":\"server/discover\",\"params\":{\"_meta\":{" META "}}}", played,
          "{\"id\":1,\"method\":\"server/discover\",\"params\":{\"_meta\":{" META "}}}");
    worker_says("{\"id\":1,\"result\":{}}\n");
    client_hears(bus, client, "{\"id\":0,\"result\":{}}\n");
    tells(old, INITIALIZE("3"));
    CHECK(strstr(client_line(bus, old), "\"code\":-32601") != NULL);
    finish(bus);
}

static void a_probe_that_fails_leaves_the_handshake_open(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int client = connect_pair(bus);
    lands(bus, client, "{\"id\":0,\"method\":\"server/discover\",\"params\":{\"_meta\":{" META "}}}", played,
          "{\"id\":1,\"method\":\"server/discover\",\"params\":{\"_meta\":{" META "}}}");
    worker_says("{\"id\":1,\"error\":{\"code\":-32601,\"message\":\"\"}}\n");
    client_hears(bus, client, "{\"id\":0,\"error\":{\"code\":-32601,\"message\":\"\"}}\n");
    lands(bus, client, INITIALIZE("1"), played, INITIALIZE("2"));
    worker_says(ANSWER("2", RESULT));
    client_hears(bus, client, ANSWER("1", RESULT));
    /* From here on a probe is answered as a server of that era does. */
    tells(client, "{\"id\":2,\"method\":\"server/discover\",\"params\":{\"_meta\":{" META "}}}");
    CHECK(strstr(client_line(bus, client), "\"code\":-32601") != NULL);
    finish(bus);
}

static void without_a_handshake_each_message_goes_to_the_least_loaded_worker(void)
{
    stdio_bus_t *bus = start(MCP, 0);
    worker_t other = embed(bus, "p");
    int client = connect_pair(bus);
    tells(client, "{\"id\":0,\"method\":\"m\",\"params\":{\"_meta\":{" META "}}}");
    tells(client, "{\"id\":1,\"method\":\"m\",\"params\":{\"_meta\":{" META "}}}");
    CHECK(reads(bus, played) != NULL && reads(bus, other) != NULL);
    finish(bus);
}

static void with_a_handshake_a_client_stays_with_its_worker(void)
{
    stdio_bus_t *bus = start(MCP, 0);
    worker_t other = embed(bus, "p");
    int client = introduce(bus);
    CHECK(reads(bus, other) != NULL);
    says(other, ANSWER("1", RESULT));
    CHECK_STR(reads(bus, other), INITIALIZED);
    lands(bus, client, "{\"id\":1,\"method\":\"a\"}", played, "{\"id\":2,\"method\":\"a\"}");
    lands(bus, client, "{\"id\":2,\"method\":\"b\"}", played, "{\"id\":3,\"method\":\"b\"}");
    CHECK(stdio_bus_session_count(bus) == 1);
    close(client);
    STEP_UNTIL(bus, stdio_bus_session_count(bus) == 0);
    finish(bus);
}

/* ---- what cannot be a handshake ------------------------------------------------------------- */

static void a_refused_initialize_shows_no_protocol(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int one = connect_pair(bus), two = connect_pair(bus);
    lands(bus, one, "{\"id\":1,\"method\":\"initialize\",\"params\":{\"protocolVersion\":1}}", played,
          "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{\"protocolVersion\":1}}");
    worker_says("{\"id\":1,\"error\":{\"code\":-32602}}\n");
    client_hears(bus, one, "{\"id\":1,\"error\":{\"code\":-32602}}\n");
    lands(bus, two, INITIALIZE("1"), played, INITIALIZE("2"));
    worker_says(ANSWER("2", RESULT));
    client_hears(bus, two, ANSWER("1", RESULT));
    CHECK_STR(worker_reads(bus), INITIALIZED);
    finish(bus);
}

static void an_initialize_of_the_other_protocol_is_refused(void)
{
    stdio_bus_t *bus = start(MCP, 0);
    int one = introduce(bus);
    tells(one, "{\"id\":1,\"method\":\"initialize\",\"params\":{\"protocolVersion\":1}}");
    CHECK(strstr(client_line(bus, one), "\"reason\":\"wrong_protocol\"") != NULL);
    finish(bus);
}

static void an_answer_to_initialize_that_is_none_ends_the_wait_at_once(void)
{
    stdio_bus_t *bus = start(MCP, 0);
    int client = connect_pair(bus);
    lands(bus, client, INITIALIZE("7"), played, INITIALIZE("1"));
    worker_says("{\"id\":1}\n");
    CHECK(strstr(client_line(bus, client), "\"id\":7,\"error\":{\"code\":-32011") != NULL);
    CHECK(stdio_bus_worker_count(bus) == 0);
    finish(bus);
}

static void an_answer_to_initialize_above_the_limit_ends_the_wait_at_once(void)
{
    stdio_bus_t *bus = start(LIMITED(DEAD_WITH("p", "\"protocol\":\"mcp\""), "\"max_input_buffer\":1024"), 0);
    int client = connect_pair(bus);
    static char line[2048];
    lands(bus, client, INITIALIZE("7"), played, INITIALIZE("1"));
    snprintf(line, sizeof line, "{\"id\":1,\"result\":\"%01500d\"}\n", 0);
    worker_says(line);
    CHECK(strstr(client_line(bus, client), "\"id\":7,\"error\":{\"code\":-32011") != NULL);
    finish(bus);
}

static const sb_test tests[] = {
    TEST(the_first_initialize_decides_and_later_ones_are_answered_from_the_record),
    TEST(what_a_pool_has_found_out_it_speaks_no_later_client_changes),
    TEST(clients_that_initialize_at_once_share_one_handshake),
    TEST(every_worker_is_initialized_before_anything_else),
    TEST(a_pool_with_an_initialize_of_its_own_uses_that),
    TEST(a_refused_initialize_is_told_and_the_next_client_may_try),
    TEST(a_client_that_leaves_during_its_handshake_leaves_it_to_the_others),
    TEST(a_worker_that_does_not_answer_initialize_is_replaced),
    TEST(a_worker_that_writes_something_else_than_json_instead_is_said_to),
    TEST(a_pool_that_has_answered_without_a_handshake_takes_none),
    TEST(a_probe_that_fails_leaves_the_handshake_open),
    TEST(without_a_handshake_each_message_goes_to_the_least_loaded_worker),
    TEST(with_a_handshake_a_client_stays_with_its_worker),
    TEST(a_refused_initialize_shows_no_protocol),
    TEST(an_initialize_of_the_other_protocol_is_refused),
    TEST(an_answer_to_initialize_that_is_none_ends_the_wait_at_once),
    TEST(an_answer_to_initialize_above_the_limit_ends_the_wait_at_once),
};

TEST_MAIN(tests)
