/*
 * test_overflow.c - a client that doesn't read is closed by what is just being
 * delivered to it, and everything of its own ends, whoever walks over it then.
 */
#include <sys/socket.h>
#include <unistd.h>

#include "fixture.h"

#define CAP 4096
#define FULL "\"max_output_queue\":4096"
#define ACP LIMITED(DEAD_WITH("p", "\"protocol\":\"acp\""), FULL)
#define PROMPT(id, session) "{\"id\":" id ",\"method\":\"session/prompt\",\"params\":{\"sessionId\":\"" session "\"}}"
#define UPDATE(session) "{\"method\":\"session/update\",\"params\":{\"sessionId\":\"" session "\"}}\n"
#define CANCEL(session) "{\"jsonrpc\":\"2.0\",\"method\":\"session/cancel\",\"params\":{\"sessionId\":\"" session "\"}}"
/* Of some length: not kept in the session itself. */
#define NAME "a-session-with-a-name-of-some-length"

/* A client whose socket takes as little as the system allows. */
static int connect_narrow(stdio_bus_t *bus)
{
    int pair[2], least = 1;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    CHECK(setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &least, sizeof least) == 0);
    CHECK(stdio_bus_adopt_client(bus, pair[1], pair[1]) > 0);
    return pair[0];
}

/* Whether the outbox of the only client that doesn't read takes not even `len` bytes more. */
static bool is_full(stdio_bus_t *bus, size_t len)
{
    return ext_stats(bus).outbox_bytes + len + 1 > CAP;
}

static void tells(int client, const char *line)
{
    client_says(client, line);
    client_says(client, "\n");
}

/* The client opens a session of this name at the worker that start() made; `id` is what that reads. */
static void opens(stdio_bus_t *bus, int client, const char *id, const char *session)
{
    char line[256];
    int pending = stdio_bus_pending_count(bus);
    tells(client, "{\"id\":0,\"method\":\"session/new\",\"params\":{}}");
    CHECK(worker_reads(bus) != NULL);
    snprintf(line, sizeof line, "{\"id\":%s,\"result\":{\"sessionId\":\"%s\"}}\n", id, session);
    worker_says(line);
    STEP_UNTIL(bus, stdio_bus_pending_count(bus) == pending);
}

static void fill(stdio_bus_t *bus, const char *update)
{
    int full_before = seen.disconnects;
    while (!is_full(bus, strlen(update))) {
        worker_says(update);
        CHECK(stdio_bus_step(bus, 20) >= 0);
    }
    CHECK(seen.disconnects == full_before);
}

static void (*on_close)(stdio_bus_t *bus);

static void on_event(stdio_bus_t *bus, const stdio_bus_event_t *event, void *user_data)
{
    (void)user_data;
    if (event->kind == STDIO_BUS_EVENT_CLIENT_DISCONNECTED && on_close != NULL) on_close(bus);
}

static stdio_bus_t *start_watched(const char *config)
{
    stdio_bus_options_t options;
    stdio_bus_ext_options_t ext;
    stdio_bus_t *bus;
    fill_options(&options, &ext, config);
    ext.on_event = on_event;
    bus = stdio_bus_create_ext(&options, &ext);
    start_created(bus);
    return bus;
}

static void end_the_session(stdio_bus_t *bus)
{
    stdio_bus_end_session(bus, "p", NAME, strlen(NAME));
}

static void the_host_may_end_a_session_while_its_waiting_turns_end(void)
{
    stdio_bus_t *bus = start_watched(ACP);
    int gone = connect_pair(bus), full, other = connect_pair(bus);
    opens(bus, gone, "1", NAME);
    tells(gone, PROMPT("1", NAME));
    CHECK(worker_reads(bus) != NULL);
    full = connect_narrow(bus);
    opens(bus, full, "3", "cccc");
    close(gone);
    CHECK_STR(worker_reads(bus), CANCEL(NAME));
    tells(full, PROMPT("5", NAME));
    STEP_UNTIL(bus, stdio_bus_pending_count(bus) == 1);
    tells(other, PROMPT("6", NAME));
    STEP_UNTIL(bus, stdio_bus_pending_count(bus) == 2);
    fill(bus, UPDATE("cccc"));
    on_close = end_the_session;
    CHECK(ingest(bus, CANCEL(NAME)) == STDIO_BUS_OK);
    client_hears(bus, other, "{\"jsonrpc\":\"2.0\",\"id\":6,\"result\":{\"stopReason\":\"cancelled\"}}\n");
    CHECK(stdio_bus_client_count(bus) == 1);
    CHECK_STR(worker_reads(bus), CANCEL(NAME));
    finish(bus);
}

static const char *ask_elsewhere;

static void give_up_and_ask_elsewhere(stdio_bus_t *bus)
{
    if (strstr(seen.frame[seen.count - 1].text, "list_changed") == NULL || ask_elsewhere == NULL) return;
    CHECK(stdio_bus_cancel(bus, "7", 1) == STDIO_BUS_OK);
    CHECK(stdio_bus_client_count(bus) == 0);
    CHECK(ingest(bus, ask_elsewhere) == STDIO_BUS_OK);
    ask_elsewhere = NULL;
}

static void a_message_for_all_reaches_each_once_whoever_is_closed_meanwhile(void)
{
    stdio_bus_t *bus = start(ACP, 0);
    int full = connect_narrow(bus), changed = 0;
    worker_t other;
    opens(bus, full, "1", NAME);
    opens(bus, full, "2", "cccc");
    worker_says("{\"id\":0,\"method\":\"session/request_permission\",\"params\":{\"sessionId\":\"" NAME "\"}}\n");
    CHECK(stdio_bus_step(bus, 20) >= 0);
    /* The turn is the host's, the question of the same session the client's. */
    CHECK(ingest(bus, PROMPT("7", NAME)) == STDIO_BUS_OK);
    CHECK(worker_reads(bus) != NULL);
    fill(bus, UPDATE("cccc"));
    other = embed(bus, "p");
    ask_elsewhere = "{\"method\":\"m\"}";
    seen.inside = give_up_and_ask_elsewhere;
    worker_says("{\"method\":\"notifications/tools/list_changed\"}\n");
    CHECK_STR(reads(bus, other), "{\"method\":\"m\"}");
    for (int i = 0; i < seen.count; i++) changed += strstr(seen.frame[i].text, "list_changed") != NULL;
    CHECK(changed == 1);
    finish(bus);
}

#define EXCLUSIVE(id, more) "{\"id\":\"" id "\",\"command\":\"cat\",\"clients\":\"exclusive\"" more "}"

static void a_client_of_several_exclusive_pools_may_be_closed_while_they_are_replaced(void)
{
    static const char pad[] = "{\"method\":\"a notification of about the same length\",\"pool\":\"b\"}";
    stdio_bus_t *bus = create(LIMITED(EXCLUSIVE("b", "") "," EXCLUSIVE("a", ",\"protocol\":\"mcp\",\"initialize\":{}"), FULL), 0);
    int client;
    CHECK(bus != NULL && stdio_bus_start(bus) == STDIO_BUS_OK);
    client = connect_narrow(bus);
    while (!is_full(bus, strlen(pad))) {
        uint64_t out;
        stdio_bus_stats_t stats;
        stdio_bus_get_stats(bus, &stats);
        out = stats.messages_out;
        tells(client, pad);
        do {
            CHECK(stdio_bus_step(bus, 20) >= 0);
            stdio_bus_get_stats(bus, &stats);
        } while (stats.messages_out == out);
    }
    tells(client, "{\"id\":1,\"method\":\"m\",\"pool\":\"a\"}");
    STEP_UNTIL(bus, stdio_bus_pending_count(bus) == 1);
    CHECK(stdio_bus_client_count(bus) == 1);
    CHECK(stdio_bus_reload(bus, NULL, LIMITED(DEAD("q"), FULL)) == STDIO_BUS_OK);
    CHECK(stdio_bus_client_count(bus) == 0);
    STEP_UNTIL(bus, stdio_bus_worker_count(bus) == 0);
    finish(bus);
}

static const sb_test tests[] = {
    TEST(the_host_may_end_a_session_while_its_waiting_turns_end),
    TEST(a_message_for_all_reaches_each_once_whoever_is_closed_meanwhile),
    TEST(a_client_of_several_exclusive_pools_may_be_closed_while_they_are_replaced),
};

TEST_MAIN(tests)
