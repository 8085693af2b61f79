/* test_errors.c - the errors the bus answers with itself: code, reason and what helps. */
#include <stdlib.h>
#include <unistd.h>

#include "fixture.h"

#define FOR(id) "{\"jsonrpc\":\"2.0\",\"id\":" id ",\"error\":{\"code\":"
#define SOURCE "\"data\":{\"source\":\"stdio_bus\",\"reason\":"

static bool holds(const char *text, const char *part)
{
    if (strstr(text, part) != NULL) return true;
    fprintf(stderr, "got:  %s\nwant: ...%s...\n", text, part);
    return false;
}

/* A bus whose worker runs this script once. */
static stdio_bus_t *start_script(const char *config)
{
    stdio_bus_t *bus = create(config, 0);
    CHECK(bus != NULL && stdio_bus_start(bus) == STDIO_BUS_OK);
    return bus;
}

#define ONCE(script) POOLS("{\"id\":\"p\",\"restart\":\"never\",\"command\":\"sh\",\"args\":[\"-c\",\"" script "\"]}")

/* A message that fills `size` bytes, valid until the next call. */
static const char *large(int id, size_t size)
{
    static char text[300000];
    int head = snprintf(text, sizeof text, "{\"id\":%d,\"method\":\"m\",\"params\":\"", id);
    CHECK(size + 3 < sizeof text);
    memset(text + head, 'x', size - (size_t)head - 2);
    memcpy(text + size - 2, "\"}", 3);
    return text;
}

/* ---- worker_exited ------------------------------------------------------------------------------ */

static void a_worker_that_exits_ends_its_requests_with_code_uptime_and_stderr(void)
{
    stdio_bus_t *bus = start_script(ONCE("read x; echo out of luck >&2; exit 3"));
    CHECK(ingest(bus, "{\"id\":\"q\",\"method\":\"m\"}") == STDIO_BUS_OK);
    STEP_UNTIL(bus, seen.count == 1);
    CHECK(holds(seen.frame[0].text, FOR("\"q\"") "-32011,\"message\":\"The worker exited before it answered\"," SOURCE
                                        "\"worker_exited\",\"pool\":\"p\",\"worker\":0,\"exit\":{\"code\":3,\"uptime_ms\":"));
    CHECK(holds(seen.frame[0].text, ",\"stderr_tail\":\"out of luck\\n\"},\"sent\":true}}}"));
    finish(bus);
}

static void a_worker_ended_by_a_signal_is_told_from_one_that_exits(void)
{
    stdio_bus_t *bus = start_script(ONCE("read x; kill -9 $$"));
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
    STEP_UNTIL(bus, seen.count == 1);
    CHECK(holds(seen.frame[0].text, "\"exit\":{\"signal\":9,\"uptime_ms\":"));
    CHECK(!strstr(seen.frame[0].text, "stderr_tail"));
    finish(bus);
}

static void a_client_is_told_the_same_as_the_host(void)
{
    stdio_bus_t *bus = start_script(ONCE("read x; exit 4"));
    int client = connect_pair(bus);
    client_says(client, "{\"id\":1,\"method\":\"m\"}\n");
    CHECK(holds(client_line(bus, client), FOR("1") "-32011,"));
    finish(bus);
}

static void a_request_says_whether_a_byte_of_it_had_reached_the_worker(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    CHECK(ingest(bus, large(1, 200000)) == STDIO_BUS_OK);
    CHECK(ingest(bus, "{\"id\":2,\"method\":\"m\"}") == STDIO_BUS_OK);
    /* The pipe takes some of the first and nothing of the second. */
    STEP_UNTIL(bus, ext_stats(bus).outbox_bytes < 200000);
    goes(played);
    STEP_UNTIL(bus, seen.count == 2);
    CHECK(holds(seen.frame[0].text, FOR("1") "-32011,"));
    CHECK(holds(seen.frame[0].text, "\"sent\":true}}}"));
    CHECK(holds(seen.frame[1].text, FOR("2") "-32011,"));
    CHECK(holds(seen.frame[1].text, "\"sent\":false}}}"));
    finish(bus);
}

static void a_pool_without_a_worker_says_how_its_last_one_ended(void)
{
    stdio_bus_t *bus = start(POOLS(DEAD("p") ",{\"id\":\"q\",\"command\":\"sh\",\"restart\":\"never\","
                                             "\"args\":[\"-c\",\"echo no such module >&2; exit 3\"]}"), 0);
    int client = connect_pair(bus);
    const char *line;
    client_says(client, "{\"id\":1,\"method\":\"m\",\"pool\":\"q\"}\n");
    line = client_line(bus, client);
    CHECK(holds(line, FOR("1") "-32011,\"message\":\"The pool has no running worker\"," SOURCE "\"worker_exited\",\"pool\":\"q\""));
    CHECK(holds(line, "\"exit\":{\"code\":3,") && holds(line, "\"stderr_tail\":\"no such module\\n\"},\"sent\":false}"));
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\",\"pool\":\"q\"}") == STDIO_BUS_ERR_WORKER);
    finish(bus);
}

/* ---- overloaded ------------------------------------------------------------------------------------ */

static void a_client_with_its_share_of_a_full_outbox_is_overloaded_and_the_others_are_not(void)
{
    stdio_bus_t *bus = start(LIMITED(DEAD("p"), "\"max_output_queue\":200000"), 0);
    int client = connect_pair(bus);
    for (int id = 1; id <= 12; id++) {
        client_says(client, large(id, 20000));
        client_says(client, "\n");
        CHECK(stdio_bus_step(bus, 0) >= 0);
    }
    CHECK(holds(client_line(bus, client), "-32012,\"message\":\"This client's share of the worker's queue is full\"," SOURCE
                                          "\"overloaded\",\"pool\":\"p\",\"sent\":false}}}"));
    CHECK(ingest(bus, large(1, 20000)) == STDIO_BUS_OK);
    CHECK(ext_stats(bus).overload_refusals > 0);
    finish(bus);
}

static void a_full_outbox_overloads_everybody(void)
{
    stdio_bus_t *bus = start(LIMITED(DEAD("p"), "\"max_output_queue\":50000"), 0);
    int client = connect_pair(bus);
    CHECK(ingest(bus, large(1, 200000)) == STDIO_BUS_OK);
    CHECK(stdio_bus_step(bus, 0) >= 0);
    client_says(client, "{\"id\":1,\"method\":\"m\"}\n");
    client_hears(bus, client, FOR("1") "-32012,\"message\":\"The worker's queue is full\"," SOURCE
                                       "\"overloaded\",\"pool\":\"p\",\"sent\":false}}}\n");
    CHECK(ingest(bus, "{\"id\":2,\"method\":\"m\"}") == STDIO_BUS_EFULL);
    CHECK(ext_stats(bus).overload_refusals == 2);
    for (int i = 0; i < 5; i++) CHECK(stdio_bus_step(bus, 0) >= 0);
    CHECK(seen.count == 0);
    finish(bus);
}

/* ---- shutting_down and unauthorized --------------------------------------------------------------------- */

static void while_draining_requests_are_refused_and_everything_else_flows(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    int client = connect_pair(bus);
    client_says(client, "{\"id\":1,\"method\":\"m\"}\n");
    worker_reads(bus);
    CHECK(stdio_bus_drain(bus, 5000, 1000) == STDIO_BUS_OK);
    CHECK(stdio_bus_get_state(bus) == STDIO_BUS_STATE_RUNNING);
    client_says(client, "{\"id\":2,\"method\":\"m\"}\n{\"method\":\"note\"}\n");
    client_hears(bus, client, FOR("2") "-32013,\"message\":\"The bus is shutting down\"," SOURCE
                                       "\"shutting_down\",\"sent\":false}}}\n");
    CHECK_STR(worker_reads(bus), "{\"method\":\"note\"}");
    CHECK(ingest(bus, "{\"id\":3,\"method\":\"m\"}") == STDIO_BUS_ERR_STATE);
    worker_says("{\"id\":7,\"method\":\"question\"}\n");
    client_hears(bus, client, "{\"id\":7,\"method\":\"question\"}\n");
    client_says(client, "{\"id\":7,\"result\":0}\n");
    CHECK_STR(worker_reads(bus), "{\"id\":7,\"result\":0}");
    worker_says("{\"id\":1,\"result\":0}\n");
    client_hears(bus, client, "{\"id\":1,\"result\":0}\n");
    STEP_UNTIL(bus, stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED);
    stdio_bus_destroy(bus);
}

static void a_stop_ends_what_is_pending_with_its_reason(void)
{
    stdio_bus_t *bus = start(CONFIG, 0);
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
    worker_reads(bus);
    CHECK(stdio_bus_stop(bus, 1) == STDIO_BUS_OK);
    STEP_UNTIL(bus, stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED);
    CHECK(seen.count == 1);
    CHECK(holds(seen.frame[0].text, FOR("1") "-32013,\"message\":\"The bus is shutting down\"," SOURCE "\"shutting_down\""));
    CHECK(holds(seen.frame[0].text, "\"sent\":true"));
    stdio_bus_destroy(bus);
}

static void a_stop_ends_what_waits_for_a_worker_that_is_to_be_started_again(void)
{
    stdio_bus_t *bus = create(LIMITED("{\"id\":\"p\",\"command\":\"false\"}", "\"max_restarts\":1000"), 0);
    CHECK(bus != NULL && stdio_bus_start(bus) == STDIO_BUS_OK);
    STEP_UNTIL(bus, worker_info(bus, 0).state == STDIO_BUS_WORKER_BACKOFF);
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
    CHECK(ingest(bus, "{\"method\":\"m\"}") == STDIO_BUS_OK);
    CHECK(stdio_bus_stop(bus, 1) == STDIO_BUS_OK);
    STEP_UNTIL(bus, stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED);
    CHECK(seen.count == 1 && stdio_bus_pending_count(bus) == 0 && ext_stats(bus).dropped_frames == 1);
    CHECK(holds(seen.frame[0].text, FOR("1") "-32013,\"message\":\"The bus is shutting down\"," SOURCE "\"shutting_down\""));
    stdio_bus_destroy(bus);
}

static void a_client_without_the_token_is_unauthorized_and_closed(void)
{
    stdio_bus_listen_options_t options = {0};
    stdio_bus_t *bus = start(CONFIG, 0);
    int client;
    options.size = sizeof options;
    options.mode = STDIO_BUS_LISTEN_TCP;
    options.token = "secret";
    options.token_len = 6;
    CHECK(stdio_bus_listen(bus, &options) == 0);
    client = connect_listener(bus, 0);
    client_says(client, "{\"id\":1,\"method\":\"m\"}\n");
    client_hears(bus, client, FOR("1") "-32014,\"message\":\"A valid token is required first\"," SOURCE
                                       "\"unauthorized\"}}}\n");
    CHECK(client_line(bus, client) == NULL);
    CHECK(ext_stats(bus).unauthorized == 1);
    client = connect_listener(bus, 0);
    client_says(client, "{\"id\":1,\"method\":\"stdio_bus/auth\",\"params\":{\"token\":\"secret\"}}\n");
    client_hears(bus, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"ok\":true}}\n");
    finish(bus);
}

/* ---- notifications ------------------------------------------------------------------------------------------ */

static void a_notification_that_cannot_be_delivered_is_counted_and_told_and_not_answered(void)
{
    static const struct {
        const char *line, *why;
    } cases[] = {
        {"{\"method\":\"m\"}\n", "unroutable"},
        {"{\"method\":\"m\",\"pool\":\"zz\"}\n", "unroutable"},
        {"{\"method\":\"m\",\"pool\":\"q\"}\n", "worker_exited"},
    };
    stdio_bus_t *bus = start(POOLS(DEAD("p") "," DEAD("q")), 0);
    int client = connect_pair(bus);
    for (size_t i = 0; i < SB_COUNT(cases); i++) {
        client_says(client, cases[i].line);
        STEP_UNTIL(bus, ext_stats(bus).dropped_frames == i + 1);
        CHECK(events_of(STDIO_BUS_EVENT_DROPPED) == (int)i + 1);
        CHECK_STR(last_event(STDIO_BUS_EVENT_DROPPED)->text, cases[i].why);
    }
    client_says(client, "{\"id\":1,\"method\":\"stdio_bus/auth\"}\n");
    client_hears(bus, client, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"ok\":true}}\n");
    finish(bus);
}

static void a_notification_for_a_full_outbox_is_counted_and_told(void)
{
    stdio_bus_t *bus = start(LIMITED(DEAD("p"), "\"max_output_queue\":50000"), 0);
    CHECK(ingest(bus, large(1, 200000)) == STDIO_BUS_OK);
    CHECK(stdio_bus_step(bus, 0) >= 0);
    CHECK(ingest(bus, "{\"method\":\"m\"}") == STDIO_BUS_EFULL);
    CHECK(ext_stats(bus).dropped_frames == 1);
    CHECK_STR(last_event(STDIO_BUS_EVENT_DROPPED)->text, "overloaded");
    finish(bus);
}

static const sb_test tests[] = {
    TEST(a_worker_that_exits_ends_its_requests_with_code_uptime_and_stderr),
    TEST(a_worker_ended_by_a_signal_is_told_from_one_that_exits),
    TEST(a_client_is_told_the_same_as_the_host),
    TEST(a_request_says_whether_a_byte_of_it_had_reached_the_worker),
    TEST(a_pool_without_a_worker_says_how_its_last_one_ended),
    TEST(a_client_with_its_share_of_a_full_outbox_is_overloaded_and_the_others_are_not),
    TEST(a_full_outbox_overloads_everybody),
    TEST(while_draining_requests_are_refused_and_everything_else_flows),
    TEST(a_stop_ends_what_is_pending_with_its_reason),
    TEST(a_stop_ends_what_waits_for_a_worker_that_is_to_be_started_again),
    TEST(a_client_without_the_token_is_unauthorized_and_closed),
    TEST(a_notification_that_cannot_be_delivered_is_counted_and_told_and_not_answered),
    TEST(a_notification_for_a_full_outbox_is_counted_and_told),
};

TEST_MAIN(tests)
