/* test_handshake.c - what else may happen while a handshake is under way: everything that waits for it ends. */
#include <unistd.h>

#include "fixture.h"

#define INITIALIZE(id) \
    "{\"jsonrpc\":\"2.0\",\"id\":" id ",\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{}}}"
#define INITIALIZED "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}"
#define ANSWER(id) "{\"jsonrpc\":\"2.0\",\"id\":" id ",\"result\":{}}\n"
#define ASK(id) "{\"id\":" id ",\"method\":\"m\"}"
#define MCP(more) POOLS(DEAD_WITH("p", "\"protocol\":\"mcp\"" more))

static stdio_bus_t *bus;
static int client;

/* A client whose initialize the worker has read and not answered, with a request behind it. */
static void begin(const char *config)
{
    bus = start(config, 0);
    client = connect_pair(bus);
    client_says(client, INITIALIZE("7") "\n" ASK("8") "\n");
    CHECK_STR(worker_reads(bus), INITIALIZE("1"));
    STEP_UNTIL(bus, pool_info(bus, 0).queued == 2);
}

static void both_end_with(const char *code)
{
    for (int id = 7; id <= 8; id++) {
        char want[64];
        const char *line = client_line(bus, client);
        CHECK(line != NULL);
        snprintf(want, sizeof want, "\"id\":%d,\"error\":{\"code\":%s", id, code);
        CHECK(strstr(line, want) != NULL);
    }
    CHECK(stdio_bus_pending_count(bus) == 0 && pool_info(bus, 0).queued_bytes == 0);
}

static void a_stop_ends_what_waits(void)
{
    begin(MCP(""));
    CHECK(stdio_bus_stop(bus, 1) == STDIO_BUS_OK);
    both_end_with("-32013");
    STEP_UNTIL(bus, stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED);
    stdio_bus_destroy(bus);
}

static void a_drain_waits_for_it(void)
{
    begin(MCP(""));
    CHECK(stdio_bus_drain(bus, 5000, 1000) == STDIO_BUS_OK);
    client_says(client, ASK("9") "\n");
    CHECK(strstr(client_line(bus, client), "\"id\":9,\"error\":{\"code\":-32013") != NULL);
    worker_says(ANSWER("1"));
    client_hears(bus, client, ANSWER("7"));
    CHECK_STR(worker_reads(bus), INITIALIZED);
    CHECK_STR(worker_reads(bus), ASK("2"));
    worker_says("{\"id\":2,\"result\":0}\n");
    client_hears(bus, client, "{\"id\":8,\"result\":0}\n");
    STEP_UNTIL(bus, stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED);
    stdio_bus_destroy(bus);
}

static void a_drain_does_not_wait_for_ever(void)
{
    begin(MCP(""));
    CHECK(stdio_bus_drain(bus, 100, 100) == STDIO_BUS_OK);
    both_end_with("-32013");
    STEP_UNTIL(bus, stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED);
    stdio_bus_destroy(bus);
}

static void a_worker_that_goes_ends_what_waits_if_no_other_may_come(void)
{
    begin(MCP(""));
    goes(played);
    both_end_with("-32011");
    finish(bus);
}

static void a_worker_that_is_unregistered_ends_what_waits(void)
{
    begin(MCP(""));
    CHECK(stdio_bus_unregister_embedded_worker(bus, played.id) == STDIO_BUS_OK);
    both_end_with("-32011");
    finish(bus);
}

static void another_worker_goes_on_with_it(void)
{
    worker_t other;
    begin(MCP(""));
    other = embed(bus, "p");
    CHECK_STR(reads(bus, other), INITIALIZE("1"));
    goes(played);
    STEP_UNTIL(bus, events_of(STDIO_BUS_EVENT_WORKER_STOPPED) == 2);
    says(other, ANSWER("1"));
    client_hears(bus, client, ANSWER("7"));
    CHECK_STR(reads(bus, other), INITIALIZED);
    CHECK_STR(reads(bus, other), ASK("2"));
    finish(bus);
}

static void time_ends_it_and_what_waits(void)
{
    begin(MCP(",\"init_timeout_sec\":1"));
    both_end_with("-32011");
    STEP_UNTIL(bus, events_of(STDIO_BUS_EVENT_WORKER_STOPPED) == 2);
    finish(bus);
}

static void a_reload_passes_it_on_and_the_old_worker_is_not_waited_for(void)
{
    worker_t fresh;
    /* The process of a new pool runs, so that what waits can wait for it. */
    begin(MCP(""));
    CHECK(stdio_bus_reload(bus, NULL, POOLS("{\"id\":\"p\",\"command\":\"sleep\",\"args\":[\"60\"],\"protocol\":\"mcp\"}")) == STDIO_BUS_OK);
    CHECK(pool_info(bus, 0).queued == 2);
    CHECK(reads(bus, played) == NULL);
    fresh = embed(bus, "p");
    CHECK_STR(reads(bus, fresh), INITIALIZE("1"));
    /* It is told to who asked even if it took two attempts to find out who that was. */
    says(fresh, "{\"id\":1,\"error\":{}}\n");
    CHECK_STR(reads(bus, fresh), INITIALIZE("2"));
    says(fresh, "{\"id\":2,\"error\":{}}\n");
    client_hears(bus, client, "{\"id\":7,\"error\":{}}\n");
    CHECK_STR(reads(bus, fresh), ASK("3"));
    finish(bus);
}

static void a_client_that_leaves_gives_up_what_waits(void)
{
    begin(MCP(""));
    close(client);
    STEP_UNTIL(bus, stdio_bus_client_count(bus) == 0);
    CHECK(stdio_bus_pending_count(bus) == 0);
    worker_says(ANSWER("1"));
    CHECK_STR(worker_reads(bus), INITIALIZED);
    STEP_UNTIL(bus, pool_info(bus, 0).queued_bytes == 0);
    CHECK(stdio_bus_worker_count(bus) == 1);
    finish(bus);
}

static const sb_test tests[] = {
    TEST(a_stop_ends_what_waits),
    TEST(a_drain_waits_for_it),
    TEST(a_drain_does_not_wait_for_ever),
    TEST(a_worker_that_goes_ends_what_waits_if_no_other_may_come),
    TEST(a_worker_that_is_unregistered_ends_what_waits),
    TEST(another_worker_goes_on_with_it),
    TEST(time_ends_it_and_what_waits),
    TEST(a_reload_passes_it_on_and_the_old_worker_is_not_waited_for),
    TEST(a_client_that_leaves_gives_up_what_waits),
};

TEST_MAIN(tests)
