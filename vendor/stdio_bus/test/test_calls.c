/*
 * test_calls.c - step, unregister and destroy inside callbacks, whichever
 * function of the API these come from: what steps is refused, and the bus is
 * destroyed when that function returns.
 */
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "fixture.h"

static int told;           /* callbacks that have destroyed the bus */
static const char *awaits; /* how the text begins at which they do; NULL: not now */

static void destroy_inside(stdio_bus_t *bus, const char *text)
{
    if (awaits == NULL || strncmp(text, awaits, strlen(awaits)) != 0) return;
    awaits = NULL;
    told++;
    CHECK(stdio_bus_step(bus, 0) == STDIO_BUS_ERR_STATE);
    CHECK(stdio_bus_unregister_embedded_worker(bus, played.id) == STDIO_BUS_ERR_STATE);
    CHECK(stdio_bus_reload(bus, NULL, CONFIG) == STDIO_BUS_ERR_STATE);
    stdio_bus_destroy(bus);
    /* Until the outermost call returns it is there. */
    CHECK(stdio_bus_worker_slots(bus) > 0);
}

static void on_error(stdio_bus_t *bus, int code, const char *message, void *user_data)
{
    (void)code;
    (void)user_data;
    destroy_inside(bus, message);
}

static void on_log(stdio_bus_t *bus, int level, const char *message, void *user_data)
{
    (void)level;
    (void)user_data;
    destroy_inside(bus, message);
}

static void on_worker(stdio_bus_t *bus, int worker, const char *event, void *user_data)
{
    (void)worker;
    (void)user_data;
    destroy_inside(bus, event);
}

static void on_client(stdio_bus_t *bus, int client, const char *text, void *user_data)
{
    (void)client;
    (void)user_data;
    destroy_inside(bus, text);
}

static void on_event(stdio_bus_t *bus, const stdio_bus_event_t *event, void *user_data)
{
    (void)user_data;
    if (event->kind == STDIO_BUS_EVENT_DROPPED) destroy_inside(bus, "dropped");
}

static stdio_bus_t *begin(const char *config)
{
    stdio_bus_options_t options;
    stdio_bus_ext_options_t ext;
    stdio_bus_t *bus;
    fill_options(&options, &ext, config);
    options.on_error = on_error;
    options.on_log = on_log;
    options.on_worker = on_worker;
    options.on_client_connect = options.on_client_disconnect = on_client;
    ext.on_event = on_event;
    bus = stdio_bus_create_ext(&options, &ext);
    start_created(bus);
    return bus;
}

/* The bus has closed what it had, so the worker's stdin has ended. */
static void is_gone(void)
{
    char byte;
    CHECK(told == 1);
    CHECK(read(played.in, &byte, 1) == 0);
}

static int open_tcp(stdio_bus_t *bus, const char *token)
{
    stdio_bus_listen_options_t options = {0};
    options.size = sizeof options;
    options.mode = STDIO_BUS_LISTEN_TCP;
    options.token = token;
    options.token_len = token != NULL ? strlen(token) : 0;
    return stdio_bus_listen(bus, &options);
}

static void a_bus_can_be_destroyed_while_a_refused_reload_is_told(void)
{
    stdio_bus_t *bus = begin(CONFIG);
    awaits = "reload:";
    CHECK(stdio_bus_reload(bus, NULL, "{") == STDIO_BUS_ERR_CONFIG);
    is_gone();
}

static void a_bus_can_be_destroyed_while_a_reload_without_a_program_is_told(void)
{
    stdio_bus_t *bus = begin(CONFIG);
    awaits = "reload:";
    CHECK(stdio_bus_reload(bus, NULL, POOLS("{\"id\":\"p\",\"command\":\"/nonexistent\"}")) == STDIO_BUS_ERR_WORKER);
    is_gone();
}

static void a_bus_can_be_destroyed_while_what_it_ingested_is_dropped(void)
{
    stdio_bus_t *bus = begin(POOLS(DEAD("p") "," DEAD("q")));
    awaits = "dropped";
    CHECK(ingest(bus, "{\"method\":\"n\",\"pool\":\"q\"}") != STDIO_BUS_OK);
    is_gone();
}

static void a_bus_can_be_destroyed_while_what_was_submitted_is_dropped(void)
{
    stdio_bus_t *bus = begin(POOLS(DEAD("p") "," DEAD("q")));
    stdio_bus_submit_options_t options = {0};
    options.size = sizeof options;
    options.pool = "q";
    options.pool_len = 1;
    awaits = "dropped";
    CHECK(stdio_bus_submit(bus, "{\"method\":\"n\"}", 14, &options) != STDIO_BUS_OK);
    is_gone();
}

static void a_bus_can_be_destroyed_while_a_worker_is_registered(void)
{
    stdio_bus_t *bus = begin(CONFIG);
    int to[2], from[2];
    CHECK(pipe(to) == 0 && pipe(from) == 0);
    awaits = "started";
    CHECK(stdio_bus_register_embedded_worker(bus, to[1], from[0], "p") >= 0);
    is_gone();
}

static void a_bus_can_be_destroyed_while_a_worker_is_unregistered(void)
{
    stdio_bus_t *bus = begin(CONFIG);
    awaits = "stopping";
    CHECK(stdio_bus_unregister_embedded_worker(bus, played.id) == STDIO_BUS_OK);
    is_gone();
}

static void a_bus_can_be_destroyed_while_it_listens(void)
{
    stdio_bus_t *bus = begin(CONFIG);
    awaits = "listening";
    CHECK(open_tcp(bus, NULL) == 0);
    is_gone();
}

static void a_bus_can_be_destroyed_while_listening_fails(void)
{
    stdio_bus_t *bus = begin(CONFIG);
    stdio_bus_listen_options_t options = {0};
    options.size = sizeof options;
    options.mode = STDIO_BUS_LISTEN_UNIX;
    options.unix_path = "/nonexistent/socket";
    awaits = "cannot listen";
    CHECK(stdio_bus_listen(bus, &options) == STDIO_BUS_EINVAL);
    is_gone();
}

static void a_bus_can_be_destroyed_while_a_client_is_adopted(void)
{
    stdio_bus_t *bus = begin(CONFIG);
    awaits = "descriptors";
    connect_pair(bus);
    is_gone();
}

static void a_bus_can_be_destroyed_while_it_stops(void)
{
    stdio_bus_t *bus = begin(CONFIG);
    awaits = "stopping";
    CHECK(stdio_bus_stop(bus, 1) == STDIO_BUS_OK);
    is_gone();
}

static void a_bus_can_be_destroyed_while_a_drain_closes_a_client_without_a_token(void)
{
    stdio_bus_t *bus = begin(CONFIG);
    CHECK(open_tcp(bus, "secret") == 0);
    connect_listener(bus, 0);
    STEP_UNTIL(bus, stdio_bus_client_count(bus) == 1);
    awaits = "shutdown";
    CHECK(stdio_bus_drain(bus, 5000, 1000) == STDIO_BUS_OK);
    is_gone();
}

static void a_bus_can_be_destroyed_while_it_steps(void)
{
    stdio_bus_t *bus = begin(CONFIG);
    awaits = "stopped";
    close(played.out);
    CHECK(stdio_bus_step(bus, BOUND_MS) > 0);
    is_gone();
}

static void a_bus_can_be_destroyed_while_it_starts(void)
{
    stdio_bus_options_t options;
    stdio_bus_ext_options_t ext;
    stdio_bus_t *bus;
    fill_options(&options, &ext, POOLS(ECHO("p")));
    options.on_worker = on_worker;
    bus = stdio_bus_create_ext(&options, &ext);
    CHECK(bus != NULL);
    awaits = "started";
    CHECK(stdio_bus_start(bus) == STDIO_BUS_OK);
    CHECK(told == 1);
}

/* ---- a stop that was asked for inside a callback -------------------------------------------- */

static void stop_on_event(stdio_bus_t *bus, const stdio_bus_event_t *event, void *user_data)
{
    (void)user_data;
    if (event->kind != STDIO_BUS_EVENT_DROPPED || told++ > 0) return;
    CHECK(stdio_bus_stop(bus, 0) == STDIO_BUS_OK);
}

static void a_stop_inside_a_callback_of_ingest_makes_the_poll_fd_readable(void)
{
    stdio_bus_options_t options;
    stdio_bus_ext_options_t ext;
    stdio_bus_t *bus;
    struct pollfd ready = {-1, POLLIN, 0};
    fill_options(&options, &ext, POOLS(DEAD("p") "," DEAD("q")));
    ext.on_event = stop_on_event;
    bus = stdio_bus_create_ext(&options, &ext);
    start_created(bus);
    ready.fd = stdio_bus_get_poll_fd(bus);
    while (poll(&ready, 1, 0) > 0) CHECK(stdio_bus_step(bus, 0) >= 0);
    CHECK(ingest(bus, "{\"method\":\"n\",\"pool\":\"q\"}") != STDIO_BUS_OK);
    CHECK(told == 1 && poll(&ready, 1, 0) == 1);
    STEP_UNTIL(bus, stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED);
    stdio_bus_destroy(bus);
}

/* ---- a bus that is being created --------------------------------------------------------------- */

static void call_everything(stdio_bus_t *bus, int level, const char *message, void *user_data)
{
    (void)level;
    (void)message;
    (void)user_data;
    told++;
    CHECK(open_tcp(bus, NULL) == STDIO_BUS_ERR_STATE);
    CHECK(stdio_bus_adopt_client(bus, 0, 1) == STDIO_BUS_ERR_STATE);
    CHECK(stdio_bus_cancel(bus, "1", 1) == STDIO_BUS_ENOTFOUND);
    CHECK(stdio_bus_end_session(bus, NULL, "s", 1) == STDIO_BUS_ENOTFOUND);
    CHECK(stdio_bus_wakeup(bus) == STDIO_BUS_ERR_STATE);
    CHECK(stdio_bus_get_poll_fd(bus) == -1);
    CHECK(stdio_bus_step(bus, 0) == STDIO_BUS_ERR_STATE && stdio_bus_start(bus) == STDIO_BUS_ERR_STATE);
    CHECK(ingest(bus, "{\"method\":\"n\"}") == STDIO_BUS_ERR_STATE);
}

static void calls_while_a_bus_is_created_are_refused(void)
{
    stdio_bus_options_t options;
    stdio_bus_ext_options_t ext;
    stdio_bus_t *bus;
    fill_options(&options, &ext, "{\"unknown\":1,\"pools\":[" DEAD("p") "]}");
    options.on_log = call_everything;
    bus = stdio_bus_create_ext(&options, &ext);
    CHECK(bus != NULL && told == 1);
    stdio_bus_destroy(bus);
}

static const sb_test tests[] = {
    TEST(a_bus_can_be_destroyed_while_a_refused_reload_is_told),
    TEST(a_bus_can_be_destroyed_while_a_reload_without_a_program_is_told),
    TEST(a_bus_can_be_destroyed_while_what_it_ingested_is_dropped),
    TEST(a_bus_can_be_destroyed_while_what_was_submitted_is_dropped),
    TEST(a_bus_can_be_destroyed_while_a_worker_is_registered),
    TEST(a_bus_can_be_destroyed_while_a_worker_is_unregistered),
    TEST(a_bus_can_be_destroyed_while_it_listens),
    TEST(a_bus_can_be_destroyed_while_listening_fails),
    TEST(a_bus_can_be_destroyed_while_a_client_is_adopted),
    TEST(a_bus_can_be_destroyed_while_it_stops),
    TEST(a_bus_can_be_destroyed_while_a_drain_closes_a_client_without_a_token),
    TEST(a_bus_can_be_destroyed_while_it_steps),
    TEST(a_bus_can_be_destroyed_while_it_starts),
    TEST(a_stop_inside_a_callback_of_ingest_makes_the_poll_fd_readable),
    TEST(calls_while_a_bus_is_created_are_refused),
};

TEST_MAIN(tests)
