/*
 * A host in C that uses the extensions: frames it need not parse, routing given
 * beside the message, a second listener, events, a request given up, a drain.
 * See README.md.
 */
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "stdio_bus_ext.h"

/* One pool answers; the other reads and says nothing. */
static const char config[] =
    "{\"pools\": ["
    "  {\"id\": \"hello\", \"instances\": 2, \"command\": \"sed\","
    "   \"args\": [\"-u\", \"s/\\\"method\\\"/\\\"result\\\"/\"]},"
    "  {\"id\": \"silent\", \"command\": \"sh\", \"args\": [\"-c\", \"cat >/dev/null\"]}"
    "]}";

typedef struct {
    int answers; /* to this host, those of the bus included */
    int worker;  /* who gave the last one */
    int failed;
} host_t;

/* Everything the bus knows of a frame comes beside it: no JSON is parsed here. */
static void on_frame(stdio_bus_t *bus, const stdio_bus_frame_t *frame, void *user_data)
{
    host_t *host = user_data;
    (void)bus;
    if (frame->kind != STDIO_BUS_FRAME_RESPONSE) return;
    printf("answer to %.*s from %s: %s\n", (int)frame->id_len, frame->id,
           frame->flags & STDIO_BUS_FRAME_FROM_BUS ? "the bus" : "a worker", frame->data);
    host->worker = frame->worker;
    host->answers++;
}

static void on_event(stdio_bus_t *bus, const stdio_bus_event_t *event, void *user_data)
{
    (void)bus;
    (void)user_data;
    switch (event->kind) {
    case STDIO_BUS_EVENT_WORKER_READY: printf("worker %d of %s is ready\n", event->worker, event->pool); break;
    case STDIO_BUS_EVENT_WORKER_STOPPED:
        printf("worker %d of %s is gone: code %d, signal %d\n", event->worker, event->pool, event->exit_code,
               event->exit_signal);
        break;
    case STDIO_BUS_EVENT_CLIENT_CONNECTED: printf("client %d came\n", event->client); break;
    case STDIO_BUS_EVENT_CLIENT_DISCONNECTED: printf("client %d went: %s\n", event->client, event->text); break;
    default: break;
    }
}

static void check(host_t *host, int ok, const char *what)
{
    if (ok) return;
    fprintf(stderr, "failed: %s\n", what);
    host->failed = 1;
}

/* A request to `pool`, in `session` unless that is NULL; a refusal is an answer, too. */
static int ask(stdio_bus_t *bus, const char *request, const char *pool, const char *session)
{
    stdio_bus_submit_options_t options = {.size = sizeof options, .flags = STDIO_BUS_SUBMIT_ANSWER_ERRORS};
    options.pool = pool;
    options.pool_len = strlen(pool);
    options.session = session;
    options.session_len = session != NULL ? strlen(session) : 0;
    return stdio_bus_submit(bus, request, strlen(request), &options);
}

static void await_answers(stdio_bus_t *bus, const host_t *host, int count)
{
    while (host->answers < count) stdio_bus_step(bus, -1);
}

/* Two requests of one session go to the same worker, whichever it is. */
static void use_a_session(stdio_bus_t *bus, host_t *host)
{
    int first;
    ask(bus, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"one\"}", "hello", "s-1");
    await_answers(bus, host, 1);
    first = host->worker;
    ask(bus, "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"two\"}", "hello", "s-1");
    await_answers(bus, host, 2);
    check(host, host->worker == first, "a session stays with its worker");
    check(host, stdio_bus_end_session(bus, "hello", "s-1", 3) == STDIO_BUS_OK, "the session ends");
}

/* Nobody answers this one; once it is given up, nobody waits for it either. */
static void give_up(stdio_bus_t *bus, host_t *host)
{
    ask(bus, "{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"wait\"}", "silent", NULL);
    stdio_bus_step(bus, 0);
    printf("%d pending", stdio_bus_pending_count(bus));
    check(host, stdio_bus_cancel(bus, "\"x\"", 3) == STDIO_BUS_OK, "cancel");
    printf(", %d after cancel\n", stdio_bus_pending_count(bus));
}

/* A client's side, as another process would have it; the bus is stepped whenever it has work. */
static void be_a_client(stdio_bus_t *bus, host_t *host, const char *address)
{
    static const char request[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"from a client\"}\n";
    struct sockaddr_in to = {.sin_family = AF_INET};
    char answer[256];
    ssize_t len = -1;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct pollfd ready[2] = {{stdio_bus_get_poll_fd(bus), POLLIN, 0}, {fd, POLLIN, 0}};
    to.sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0 && write(fd, request, sizeof request - 1) > 0) {
        while (poll(ready, 2, -1) > 0 && !(ready[1].revents & POLLIN)) stdio_bus_step(bus, 0);
        len = read(fd, answer, sizeof answer);
    }
    check(host, len > 0, "a client gets its answer");
    if (len > 0) printf("the client read: %.*s", (int)len, answer);
    close(fd);
    while (stdio_bus_client_count(bus) > 0) stdio_bus_step(bus, -1);
}

static void listen_and_serve(stdio_bus_t *bus, host_t *host)
{
    stdio_bus_listen_options_t options = {.size = sizeof options, .mode = STDIO_BUS_LISTEN_TCP, .pool = "hello"};
    char address[64];
    int listener = stdio_bus_listen(bus, &options); /* the system chooses the port */
    if (listener < 0 || stdio_bus_listener_address(bus, listener, address, sizeof address) < 0) {
        check(host, 0, stdio_bus_status_message(listener));
        return;
    }
    printf("%d listeners\n", stdio_bus_listener_count(bus));
    be_a_client(bus, host, address);
}

/* What was accepted is still answered, what comes now is refused, and then everything stops. */
static void drain(stdio_bus_t *bus, host_t *host)
{
    int before = host->answers;
    ask(bus, "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"last\"}", "hello", NULL);
    check(host, stdio_bus_drain(bus, 5000, 2000) == STDIO_BUS_OK, "drain");
    ask(bus, "{\"jsonrpc\":\"2.0\",\"id\":4,\"method\":\"late\"}", "hello", NULL);
    while (stdio_bus_get_state(bus) != STDIO_BUS_STATE_STOPPED) stdio_bus_step(bus, -1);
    check(host, host->answers == before + 2, "both are answered");
}

static stdio_bus_t *make_bus(host_t *host, const char *socket_path)
{
    stdio_bus_options_t options = {.config_json = config, .user_data = host, .log_level = 2};
    stdio_bus_ext_options_t ext = {.size = sizeof ext, .on_frame = on_frame, .on_event = on_event};
    /* This thread runs the bus for its whole life, so workers may end with it. */
    ext.flags = STDIO_BUS_CREATE_PARENT_DEATH_SIGNAL;
    options.listener.mode = STDIO_BUS_LISTEN_UNIX;
    options.listener.unix_path = socket_path;
    return stdio_bus_create_ext(&options, &ext);
}

int main(void)
{
    char folder[] = "/tmp/c_host.XXXXXX", path[64];
    host_t host = {0};
    stdio_bus_t *bus;
    if (mkdtemp(folder) == NULL) return 1;
    snprintf(path, sizeof path, "%s/bus.sock", folder);
    printf("stdio_bus %s\n", stdio_bus_version());
    bus = make_bus(&host, path);
    if (bus != NULL && stdio_bus_start(bus) == STDIO_BUS_OK) {
        use_a_session(bus, &host);
        give_up(bus, &host);
        listen_and_serve(bus, &host);
        drain(bus, &host);
    } else {
        host.failed = 1;
    }
    stdio_bus_destroy(bus);
    rmdir(folder); /* the bus has removed its socket */
    return host.failed;
}
