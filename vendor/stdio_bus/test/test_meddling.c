/*
 * test_meddling.c - a host that calls anything from any callback, at random:
 * nothing breaks, and in the end everything is gone. What is told from where is
 * looked at in test_reentry.c; this finds the combinations nobody thought of.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fixture.h"

enum { CLIENTS = 8, OWN = 6, ROUNDS = 150, LIVES = 40, DEPTH = 3 };

static uint64_t state;
static int clients[CLIENTS];
static worker_t own[OWN];
static int depth;
static bool stepping, finishing, ended; /* inside a step or a start; no destroy any more; destroyed */

static unsigned rnd(unsigned n)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(state >> 33) % n;
}

static const char *some_pool(void)
{
    return rnd(3) == 0 ? "q" : "p";
}

/* A line of any kind, valid until the next call. */
static const char *some_line(void)
{
    static char line[256];
    static const char *const format[] = {
        "{\"id\":%u,\"method\":\"m\",\"pool\":\"%s\"}\n",
        "{\"id\":%u,\"method\":\"m\",\"pool\":\"%s\",\"sessionId\":\"s%u\"}\n",
        "{\"method\":\"n%u\",\"pool\":\"%s\",\"sessionId\":\"s%u\"}\n",
        "{\"id\":%u,\"result\":\"%s\"}\n",
        "{\"id\":%u,\"result\":{\"pool\":\"%s\",\"sessionId\":\"s%u\"}}\n",
        "{\"id\":%u,\"error\":\"%s\",\"sessionId\":\"s%u\"}\n",
        "{\"id\":%u,\"method\":\"initialize\",\"pool\":\"%s\",\"params\":{}}\n",
        "{\"id\":%u,\"method\":\"session/new\",\"pool\":\"%s\",\"params\":{}}\n",
        "{\"id\":%u,\"method\":\"session/prompt\",\"pool\":\"%s\",\"params\":{\"sessionId\":\"s%u\"}}\n",
        "{\"id\":%u,\"method\":\"session/load\",\"pool\":\"%s\",\"params\":{\"sessionId\":\"s%u\"}}\n",
        "{\"id\":%u,\"method\":\"session/close\",\"pool\":\"%s\",\"params\":{\"sessionId\":\"s%u\"}}\n",
        "{\"method\":\"notifications/tools/list_changed\",\"x\":%u,\"pool\":\"%s\"}\n",
        "{\"id\":%u,\"method\":\"tools/call\",\"pool\":\"%s\",\"params\":{\"_meta\":{\"progressToken\":%u}}}\n",
        "{\"id\":%u,\"method\":\"session/request_permission\",\"pool\":\"%s\",\"params\":{\"sessionId\":\"s%u\"}}\n",
        "{\"method\":\"session/cancel\",\"x\":%u,\"pool\":\"%s\",\"params\":{\"sessionId\":\"s%u\"}}\n",
        "{\"method\":\"notifications/cancelled\",\"x\":%u,\"pool\":\"%s\",\"params\":{\"requestId\":%u}}\n",
        "{\"method\":\"$/cancel_request\",\"x\":%u,\"pool\":\"%s\",\"params\":{\"requestId\":%u}}\n",
        "{\"method\":\"notifications/progress\",\"x\":%u,\"pool\":\"%s\",\"params\":{\"progressToken\":%u}}\n",
        "no json %u %s\n",
    };
    snprintf(line, sizeof line, format[rnd(SB_COUNT(format))], rnd(20), some_pool(), rnd(4));
    return line;
}

static void adopt(stdio_bus_t *bus)
{
    int pair[2], *place = &clients[rnd(CLIENTS)];
    if (*place >= 0) return;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
    if (stdio_bus_adopt_client(bus, pair[1], pair[1]) <= 0) {
        close(pair[0]);
        close(pair[1]);
        return;
    }
    *place = pair[0];
}

static void embed_one(stdio_bus_t *bus)
{
    int in[2], out[2], id;
    worker_t *place = &own[rnd(OWN)];
    if (place->in >= 0) return;
    CHECK(pipe2(in, O_NONBLOCK) == 0 && pipe2(out, O_NONBLOCK) == 0);
    id = stdio_bus_register_embedded_worker(bus, in[1], out[0], some_pool());
    if (id < 0) {
        for (int i = 0; i < 2; i++) CHECK(close(in[i]) == 0 && close(out[i]) == 0);
        return;
    }
    place->id = id;
    place->in = in[0];
    place->out = out[1];
}

static void open_one(stdio_bus_t *bus)
{
    stdio_bus_listen_options_t options = {0};
    options.size = sizeof options;
    options.mode = STDIO_BUS_LISTEN_TCP;
    if (stdio_bus_listener_count(bus) < 4) stdio_bus_listen(bus, &options);
}

#define TWO(more) \
    LIMITED("{\"id\":\"p\",\"command\":\"cat\",\"instances\":2" more "}," DEAD("q"), \
            "\"max_restarts\":3,\"max_output_queue\":4096,\"session_idle_sec\":1,\"max_sessions\":3")

static const char *some_config(void)
{
    static const char *const configs[] = {
        TWO(""),
        TWO(",\"env\":{\"A\":\"1\"}"),
        TWO(",\"protocol\":\"mcp\""),
        TWO(",\"protocol\":\"acp\""),
        TWO(",\"protocol\":\"mcp\",\"initialize\":{},\"init_timeout_sec\":1"),
        TWO(",\"clients\":\"exclusive\""),
        TWO(",\"clients\":\"exclusive\",\"protocol\":\"acp\""),
        POOLS(DEAD_WITH("p", "\"protocol\":\"acp\"") "," DEAD_WITH("q", "\"protocol\":\"mcp\"")),
        POOLS(DEAD("p") "," DEAD("q")),
    };
    return configs[rnd(SB_COUNT(configs))];
}

static void meddle(stdio_bus_t *bus)
{
    char id[16];
    stdio_bus_worker_info_t info = {0};
    /* A bus that is being created has not been given to anybody yet. */
    if (depth >= DEPTH || ended || stdio_bus_get_state(bus) == STDIO_BUS_STATE_CREATED || rnd(3) == 0) return;
    depth++;
    snprintf(id, sizeof id, "%u", rnd(20));
    info.size = sizeof info;
    switch (rnd(16)) {
    case 0: stdio_bus_cancel(bus, id, strlen(id)); break;
    case 1: stdio_bus_end_session(bus, rnd(2) ? NULL : "p", id[1] ? "s1" : "s0", 2); break;
    case 2: open_one(bus); break;
    case 3:
    case 4: adopt(bus); break;
    case 5:
    case 6: embed_one(bus); break;
    case 7: stdio_bus_unregister_embedded_worker(bus, (int)rnd(12)); break;
    case 8: stdio_bus_reload(bus, NULL, rnd(8) ? some_config() : "nonsense"); break;
    case 9: stdio_bus_wakeup(bus); break;
    case 10:
        /* Its own processes only: the pid of an embedded worker is -1. */
        if (stdio_bus_worker_info(bus, (int)rnd(4), &info) == STDIO_BUS_OK && info.pid > 0) kill(info.pid, SIGKILL);
        break;
    case 11:
        if (rnd(200) == 0) stdio_bus_drain(bus, rnd(100), 100);
        break;
    case 12:
        if (rnd(300) == 0) stdio_bus_stop(bus, 1);
        break;
    case 13:
        /* From outside it would be gone before this returns. */
        if ((stepping || depth > 1) && !finishing && rnd(500) == 0) {
            ended = true;
            stdio_bus_destroy(bus);
        }
        break;
    default: ingest(bus, some_line()); break;
    }
    depth--;
}

static void on_message(stdio_bus_t *bus, const char *msg, size_t len, void *user_data)
{
    (void)user_data;
    CHECK(msg[len] == '\0');
    meddle(bus);
}

static void on_error(stdio_bus_t *bus, int code, const char *message, void *user_data)
{
    (void)code;
    (void)message;
    (void)user_data;
    meddle(bus);
}

static void on_log(stdio_bus_t *bus, int level, const char *message, void *user_data)
{
    (void)level;
    (void)message;
    (void)user_data;
    meddle(bus);
}

static void on_worker(stdio_bus_t *bus, int worker, const char *event, void *user_data)
{
    (void)worker;
    (void)event;
    (void)user_data;
    meddle(bus);
}

static void on_client(stdio_bus_t *bus, int client, const char *text, void *user_data)
{
    (void)client;
    (void)text;
    (void)user_data;
    meddle(bus);
}

static void on_event(stdio_bus_t *bus, const stdio_bus_event_t *event, void *user_data)
{
    (void)event;
    (void)user_data;
    meddle(bus);
}

static void close_place(int *fd)
{
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

/* What clients and workers do meanwhile. */
static void live(void)
{
    char bytes[512];
    int *client = &clients[rnd(CLIENTS)];
    worker_t *worker = &own[rnd(OWN)];
    const char *line = some_line();
    if (*client >= 0 && rnd(20) == 0) close_place(client);
    if (*client >= 0) send(*client, line, strlen(line), MSG_NOSIGNAL);
    if (*client >= 0 && rnd(3) == 0) while (read(*client, bytes, sizeof bytes) > 0) continue;
    if (worker->in >= 0 && rnd(20) == 0) {
        close_place(&worker->in);
        close_place(&worker->out);
    }
    line = some_line();
    if (worker->out >= 0 && write(worker->out, line, strlen(line)) < 0) close_place(&worker->out);
    if (worker->in >= 0 && rnd(3) == 0) while (read(worker->in, bytes, sizeof bytes) > 0) continue;
    if (worker->out < 0) close_place(&worker->in);
}

static stdio_bus_t *make(unsigned flags)
{
    stdio_bus_options_t options = {0};
    stdio_bus_ext_options_t ext = {0};
    options.config_json = some_config();
    options.on_message = on_message;
    options.on_error = on_error;
    options.on_log = on_log;
    options.on_worker = on_worker;
    options.on_client_connect = options.on_client_disconnect = on_client;
    ext.size = sizeof ext;
    ext.flags = flags;
    ext.on_event = on_event;
    return stdio_bus_create_ext(&options, &ext);
}

static void one_life(uint64_t seed)
{
    stdio_bus_t *bus;
    state = seed;
    ended = stepping = finishing = false;
    depth = 0;
    memset(clients, -1, sizeof clients);
    memset(own, -1, sizeof own);
    bus = make(seed % 2 ? STDIO_BUS_CREATE_POLL : 0);
    CHECK(bus != NULL);
    stepping = true;
    CHECK(stdio_bus_start(bus) == STDIO_BUS_OK);
    for (int i = 0; i < ROUNDS && !ended; i++) {
        stepping = true;
        CHECK(stdio_bus_step(bus, (int)rnd(2)) >= 0);
        stepping = false;
        if (ended) break;
        meddle(bus);
        if (ended) break;
        live();
    }
    finishing = true;
    if (!ended && rnd(3) > 0) {
        stdio_bus_stop(bus, (int)rnd(2));
        STEP_UNTIL(bus, stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED);
        CHECK(stdio_bus_client_count(bus) == 0 && stdio_bus_pending_count(bus) == 0);
    }
    if (!ended) stdio_bus_destroy(bus);
    for (int i = 0; i < CLIENTS; i++) close_place(&clients[i]);
    for (int i = 0; i < OWN; i++) {
        close_place(&own[i].in);
        close_place(&own[i].out);
    }
}

static void any_call_from_any_callback_is_survived(void)
{
    const char *from = getenv("SB_TEST_SEED");
    uint64_t first = from != NULL ? strtoull(from, NULL, 10) : 1;
    signal(SIGPIPE, SIG_IGN);
    for (uint64_t seed = first; seed < first + LIVES; seed++) one_life(seed);
}

static const sb_test tests[] = {TEST(any_call_from_any_callback_is_survived)};

TEST_MAIN(tests)
