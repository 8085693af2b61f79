/* test_reentry.c - what a host may call from inside a callback, at the moments that are easiest to get wrong. */
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fixture.h"

static stdio_bus_t *create_with(const char *config, void (*change)(stdio_bus_options_t *, stdio_bus_ext_options_t *))
{
    stdio_bus_options_t options;
    stdio_bus_ext_options_t ext;
    fill_options(&options, &ext, config);
    change(&options, &ext);
    return stdio_bus_create_ext(&options, &ext);
}

static int open_tcp(stdio_bus_t *bus)
{
    stdio_bus_listen_options_t options = {0};
    options.size = sizeof options;
    options.mode = STDIO_BUS_LISTEN_TCP;
    return stdio_bus_listen(bus, &options);
}

/* ---- listeners ----------------------------------------------------------------------------- */

static void drain_on_connect(stdio_bus_t *bus, int client, const char *peer, void *user_data)
{
    (void)client;
    (void)peer;
    (void)user_data;
    CHECK(stdio_bus_drain(bus, 5000, 1000) == STDIO_BUS_OK);
}

static void drain_when_a_client_comes(stdio_bus_options_t *options, stdio_bus_ext_options_t *ext)
{
    (void)ext;
    options->on_client_connect = drain_on_connect;
}

static void a_drain_while_a_client_is_accepted_closes_the_listener_after_that(void)
{
    stdio_bus_t *bus = create_with(CONFIG, drain_when_a_client_comes);
    int client;
    start_created(bus);
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\"}") == STDIO_BUS_OK);
    worker_reads(bus);
    CHECK(open_tcp(bus) == 0);
    client = connect_listener(bus, 0);
    CHECK(stdio_bus_listener_count(bus) == 0 && stdio_bus_get_state(bus) == STDIO_BUS_STATE_RUNNING);
    worker_says("{\"id\":1,\"result\":0}\n");
    STEP_UNTIL(bus, stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED);
    CHECK(client_line(bus, client) == NULL);
    stdio_bus_destroy(bus);
}

static int wanted; /* what is still to be done by a log line */

static void listen_on_log(stdio_bus_t *bus, int level, const char *message, void *user_data)
{
    (void)level;
    (void)user_data;
    if (strncmp(message, "listening", 9) == 0 && wanted-- > 0) CHECK(open_tcp(bus) >= 0);
}

static void listen_once_more(stdio_bus_options_t *options, stdio_bus_ext_options_t *ext)
{
    (void)ext;
    options->on_log = listen_on_log;
}

static void a_listener_can_be_opened_while_another_one_is_logged(void)
{
    stdio_bus_t *bus = create_with(CONFIG, listen_once_more);
    start_created(bus);
    wanted = 3;
    CHECK(open_tcp(bus) == 0);
    CHECK(stdio_bus_listener_count(bus) == 4);
    for (int i = 0; i < 4; i++) connect_listener(bus, i);
    finish(bus);
}

static void drain_on_log(stdio_bus_t *bus, int level, const char *message, void *user_data)
{
    (void)level;
    (void)user_data;
    if (strncmp(message, "listening", 9) == 0) CHECK(stdio_bus_drain(bus, 5000, 1000) == STDIO_BUS_OK);
}

static void drain_when_listening(stdio_bus_options_t *options, stdio_bus_ext_options_t *ext)
{
    (void)ext;
    options->on_log = drain_on_log;
}

static void a_listener_that_is_logged_while_draining_begins_is_closed_with_the_others(void)
{
    stdio_bus_t *bus = create_with(CONFIG, drain_when_listening);
    start_created(bus);
    CHECK(open_tcp(bus) >= 0);
    STEP_UNTIL(bus, stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED);
    CHECK(stdio_bus_listener_count(bus) == 0);
    stdio_bus_destroy(bus);
}

/* ---- workers ---------------------------------------------------------------------------------- */

static worker_t substitute;

static void embed_on_log(stdio_bus_t *bus, int level, const char *message, void *user_data)
{
    (void)level;
    (void)user_data;
    if (strstr(message, "is gone") == NULL || wanted-- <= 0) return;
    substitute = embed(bus, "p");
}

static void embed_when_one_goes(stdio_bus_options_t *options, stdio_bus_ext_options_t *ext)
{
    (void)ext;
    options->on_log = embed_on_log;
}

static void a_worker_can_be_registered_while_another_one_goes(void)
{
    stdio_bus_t *bus = create_with(CONFIG, embed_when_one_goes);
    start_created(bus);
    CHECK(ingest(bus, "{\"id\":1,\"method\":\"m\",\"sessionId\":\"s\"}") == STDIO_BUS_OK);
    worker_reads(bus);
    wanted = 1;
    goes(played);
    STEP_UNTIL(bus, seen.count == 1);
    CHECK(strstr(seen.frame[0].text, "worker_exited") != NULL && stdio_bus_pending_count(bus) == 0);
    CHECK(stdio_bus_worker_count(bus) == 1 && substitute.id != played.id);
    CHECK(ingest(bus, "{\"id\":2,\"method\":\"m\",\"sessionId\":\"s\"}") == STDIO_BUS_OK);
    CHECK(reads(bus, substitute) != NULL);
    says(substitute, "{\"id\":2,\"result\":0}\n");
    STEP_UNTIL(bus, seen.count == 2);
    finish(bus);
}

static void ingest_on_ready(stdio_bus_t *bus, const stdio_bus_event_t *event, void *user_data)
{
    (void)user_data;
    if (event->kind != STDIO_BUS_EVENT_WORKER_READY || wanted-- != 1) return;
    CHECK(ingest(bus, "{\"method\":\"third\",\"sessionId\":\"s\"}") == STDIO_BUS_OK);
}

static void ingest_when_ready(stdio_bus_options_t *options, stdio_bus_ext_options_t *ext)
{
    (void)options;
    ext->on_event = ingest_on_ready;
}

static void what_is_sent_when_a_worker_becomes_ready_does_not_overtake_what_has_waited_for_it(void)
{
    /* Ends at once, so that messages wait for the next start. */
    stdio_bus_t *bus = create_with(LIMITED("{\"id\":\"p\",\"command\":\"false\"}", "\"max_restarts\":1000"), ingest_when_ready);
    worker_t worker;
    CHECK(bus != NULL && stdio_bus_start(bus) == STDIO_BUS_OK);
    STEP_UNTIL(bus, worker_info(bus, 0).state == STDIO_BUS_WORKER_BACKOFF);
    CHECK(ingest(bus, "{\"method\":\"first\",\"sessionId\":\"s\"}") == STDIO_BUS_OK);
    CHECK(ingest(bus, "{\"method\":\"second\",\"sessionId\":\"s\"}") == STDIO_BUS_OK);
    wanted = 1;
    worker = embed(bus, "p");
    CHECK_STR(reads(bus, worker), "{\"method\":\"first\",\"sessionId\":\"s\"}");
    CHECK_STR(reads(bus, worker), "{\"method\":\"second\",\"sessionId\":\"s\"}");
    CHECK_STR(reads(bus, worker), "{\"method\":\"third\",\"sessionId\":\"s\"}");
    finish(bus);
}

static void embed_on_drop(stdio_bus_t *bus, const stdio_bus_event_t *event, void *user_data)
{
    (void)user_data;
    if (event->kind == STDIO_BUS_EVENT_DROPPED && wanted-- > 0) substitute = embed(bus, "p");
}

static void embed_when_one_is_dropped(stdio_bus_options_t *options, stdio_bus_ext_options_t *ext)
{
    (void)options;
    ext->on_event = embed_on_drop;
}

/* A program that can be started once. */
static void write_program(const char *path)
{
    FILE *script = fopen(path, "w");
    CHECK(script != NULL && fputs("#!/bin/sh\nexec cat\n", script) > 0 && fclose(script) == 0 && chmod(path, 0700) == 0);
}

static void a_worker_can_be_registered_while_the_queue_of_a_failed_pool_is_dropped(void)
{
    char path[64], config[256];
    stdio_bus_t *bus;
    snprintf(path, sizeof path, "/tmp/stdio_bus-test-reentry-%d", (int)getpid());
    write_program(path);
    snprintf(config, sizeof config, LIMITED("{\"id\":\"p\",\"command\":\"%s\"}", "\"max_restarts\":1"), path);
    bus = create_with(config, embed_when_one_is_dropped);
    CHECK(bus != NULL && stdio_bus_start(bus) == STDIO_BUS_OK);
    CHECK(unlink(path) == 0 && kill(worker_info(bus, 0).pid, SIGKILL) == 0);
    STEP_UNTIL(bus, stdio_bus_worker_count(bus) == 0);
    for (int i = 0; i < 3; i++) CHECK(ingest(bus, "{\"method\":\"m\"}") == STDIO_BUS_OK);
    wanted = 1;
    STEP_UNTIL(bus, ext_stats(bus).dropped_frames == 3);
    CHECK(stdio_bus_worker_count(bus) == 1 && pool_info(bus, 0).queued_bytes == 0);
    CHECK(ingest(bus, "{\"method\":\"next\"}") == STDIO_BUS_OK);
    CHECK_STR(reads(bus, substitute), "{\"method\":\"next\"}");
    finish(bus);
}

/* ---- handshakes -------------------------------------------------------------------------------- */

#define PARAMS "{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{}}"
#define INITIALIZE(id) "{\"jsonrpc\":\"2.0\",\"id\":" id ",\"method\":\"initialize\",\"params\":" PARAMS "}"

static void initialize_again(stdio_bus_t *bus)
{
    if (wanted-- > 0) CHECK(ingest(bus, INITIALIZE("8")) == STDIO_BUS_OK);
}

static void an_initialize_can_be_tried_again_while_its_refusal_is_told(void)
{
    stdio_bus_t *bus = start(POOLS(DEAD_WITH("p", "\"protocol\":\"mcp\"")), 0);
    CHECK(ingest(bus, INITIALIZE("7")) == STDIO_BUS_OK);
    CHECK_STR(worker_reads(bus), INITIALIZE("1"));
    wanted = 1;
    seen.events = 0;
    seen.inside = initialize_again;
    worker_says("{\"id\":1,\"error\":{}}\n");
    CHECK_STR(worker_reads(bus), INITIALIZE("2"));
    CHECK(stdio_bus_worker_count(bus) == 0);
    worker_says("{\"id\":2,\"result\":{}}\n");
    STEP_UNTIL(bus, seen.count == 2);
    CHECK_STR(seen.frame[1].text, "{\"jsonrpc\":\"2.0\",\"id\":8,\"result\":{}}");
    CHECK(events_of(STDIO_BUS_EVENT_WORKER_READY) == 1);
    finish(bus);
}

/* ---- the bus itself ------------------------------------------------------------------------------- */

static void destroy_on_log(stdio_bus_t *bus, int level, const char *message, void *user_data)
{
    (void)level;
    (void)message;
    (void)user_data;
    if (wanted-- <= 0) return;
    CHECK(stdio_bus_step(bus, 0) == STDIO_BUS_ERR_STATE);
    stdio_bus_destroy(bus);
}

static void destroy_when_it_logs(stdio_bus_options_t *options, stdio_bus_ext_options_t *ext)
{
    (void)ext;
    options->on_log = destroy_on_log;
    options->log_level = 0;
}

static void destroy_inside_destroy_does_nothing(void)
{
    stdio_bus_t *bus = create_with(CONFIG, destroy_when_it_logs);
    start_created(bus);
    connect_pair(bus);
    wanted = 1;
    stdio_bus_destroy(bus);
    CHECK(wanted == 0);
}

static void destroy_inside_a_create_that_fails_does_nothing(void)
{
    wanted = 1;
    CHECK(create_with("{\"pools\":[]}", destroy_when_it_logs) == NULL);
    CHECK(wanted == 0);
}

static const sb_test tests[] = {
    TEST(a_drain_while_a_client_is_accepted_closes_the_listener_after_that),
    TEST(a_listener_can_be_opened_while_another_one_is_logged),
    TEST(a_listener_that_is_logged_while_draining_begins_is_closed_with_the_others),
    TEST(a_worker_can_be_registered_while_another_one_goes),
    TEST(what_is_sent_when_a_worker_becomes_ready_does_not_overtake_what_has_waited_for_it),
    TEST(a_worker_can_be_registered_while_the_queue_of_a_failed_pool_is_dropped),
    TEST(an_initialize_can_be_tried_again_while_its_refusal_is_told),
    TEST(destroy_inside_destroy_does_nothing),
    TEST(destroy_inside_a_create_that_fails_does_nothing),
};

TEST_MAIN(tests)
