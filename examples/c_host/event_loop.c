/*
 * A host in C with an event loop of its own, in which the bus is one descriptor
 * among others: a worker that lives in this process, clients that show a token,
 * SIGHUP for another configuration, SIGTERM for a drain. It sends the signals
 * and is the client itself, so that it ends. See README.md.
 */
#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "stdio_bus_ext.h"

#define POOL(instances) "{\"pools\": [{\"id\": \"hello\", \"instances\": " #instances ", \"command\": \"sed\"," \
                        " \"args\": [\"-u\", \"s/\\\"method\\\"/\\\"result\\\"/\"]}]}"

enum { BUS, OWN, CLIENT, FDS };

typedef struct {
    stdio_bus_t *bus;
    struct pollfd fds[FDS];
    int own_out; /* where the worker in this process writes to */
    int answers; /* to this host and to the client */
    int reloaded;
} host_t;

/* ---- signals: a flag, and the bus's descriptor becomes readable ------------------------------- */

static stdio_bus_t *signalled; /* as long as it exists */
static volatile sig_atomic_t wants_reload, wants_drain;

static void on_signal(int sig)
{
    if (sig == SIGHUP) wants_reload = 1;
    if (sig == SIGTERM) wants_drain = 1;
    stdio_bus_wakeup(signalled);
}

static void act_on_signals(host_t *host)
{
    if (wants_reload) {
        wants_reload = 0;
        /* What is wrong with a configuration goes to on_error, and the old one stays. */
        host->reloaded = stdio_bus_reload(host->bus, NULL, POOL(3)) == STDIO_BUS_OK;
    }
    if (wants_drain) {
        wants_drain = 0;
        stdio_bus_drain(host->bus, STDIO_BUS_DRAIN_CONFIGURED, 2000);
    }
}

/* ---- a worker in this process --------------------------------------------------------------------- */

/* The bus writes to one pipe and reads from the other; it never waits, and neither may this. */
static int join_as_worker(host_t *host)
{
    int to[2], from[2];
    if (pipe(to) != 0 || pipe(from) != 0) return -1;
    host->fds[OWN].fd = to[0];
    host->own_out = from[1];
    return stdio_bus_register_embedded_worker(host->bus, to[1], from[0], "hello");
}

/* Does what sed does. A worker with much to say would keep what the pipe does not take. */
static void work(host_t *host)
{
    char line[4096]; /* requests are short here: each read brings whole lines */
    ssize_t len = read(host->fds[OWN].fd, line, sizeof line - 1);
    if (len <= 0) { /* the bus has stopped, or this worker was unregistered */
        close(host->fds[OWN].fd);
        close(host->own_out);
        host->fds[OWN].fd = -1;
        return;
    }
    line[len] = '\0';
    for (char *at = line; (at = strstr(at, "\"method\"")) != NULL;) memcpy(at, "\"result\"", 8);
    if (write(host->own_out, line, (size_t)len) != len) perror("the own worker");
}

/* ---- a client, as another process would be ------------------------------------------------------------ */

static int listen_with_token(stdio_bus_t *bus)
{
    stdio_bus_listen_options_t options = {.size = sizeof options, .mode = STDIO_BUS_LISTEN_TCP, .pool = "hello"};
    options.token = "secret"; /* from a file, in earnest */
    options.token_len = 6;
    return stdio_bus_listen(bus, &options);
}

static void become_a_client(host_t *host, int listener)
{
    static const char hello[] = "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"stdio_bus/auth\",\"params\":{\"token\":\"secret\"}}\n"
                                "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"from a client\"}\n";
    struct sockaddr_in to = {.sin_family = AF_INET};
    char address[64];
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (stdio_bus_listener_address(host->bus, listener, address, sizeof address) < 0) return;
    to.sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    /* The system has completed the connection before the bus accepts it. */
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0 || write(fd, hello, sizeof hello - 1) < 0) perror("client");
    host->fds[CLIENT].fd = fd;
}

static void hear(host_t *host)
{
    char text[512];
    ssize_t len = read(host->fds[CLIENT].fd, text, sizeof text);
    if (len <= 0) {
        close(host->fds[CLIENT].fd);
        host->fds[CLIENT].fd = -1;
        return;
    }
    printf("the client read: %.*s", (int)len, text);
    for (ssize_t i = 0; i < len; i++) host->answers += text[i] == '\n';
}

/* ---- the host -------------------------------------------------------------------------------------------- */

static void on_frame(stdio_bus_t *bus, const stdio_bus_frame_t *frame, void *user_data)
{
    host_t *host = user_data;
    (void)bus;
    if (frame->kind != STDIO_BUS_FRAME_RESPONSE) return;
    printf("worker %d: %s\n", frame->worker, frame->data);
    host->answers++;
}

/* One turn of the loop. Whatever a call outside of it has set going makes the bus's descriptor readable, too. */
static void turn(host_t *host)
{
    if (poll(host->fds, FDS, -1) < 0) return; /* a signal: the next one finds the bus's descriptor readable */
    if (host->fds[OWN].revents != 0) work(host);
    if (host->fds[CLIENT].revents != 0) hear(host);
    if (host->fds[BUS].revents != 0) stdio_bus_step(host->bus, 0);
    act_on_signals(host);
}

static void run(host_t *host)
{
    static const char *const requests[] = {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"one\"}",
                                           "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"two\"}"};
    int worker = join_as_worker(host), listener = listen_with_token(host->bus);
    if (worker < 0 || listener < 0) return;
    /* One for sed and one for this process: the least loaded is asked, and equals take turns. */
    for (int i = 0; i < 2; i++) stdio_bus_ingest(host->bus, requests[i], strlen(requests[i]));
    become_a_client(host, listener);
    while (host->answers < 4) turn(host); /* with the one to the token */
    raise(SIGHUP);
    while (!host->reloaded) turn(host);
    raise(SIGTERM);
    while (stdio_bus_get_state(host->bus) != STDIO_BUS_STATE_STOPPED) turn(host);
}

int main(void)
{
    host_t host = {.fds = {{-1, POLLIN, 0}, {-1, POLLIN, 0}, {-1, POLLIN, 0}}};
    stdio_bus_options_t options = {.config_json = POOL(1), .user_data = &host, .log_level = 3};
    stdio_bus_ext_options_t ext = {.size = sizeof ext, .on_frame = on_frame};
    host.bus = signalled = stdio_bus_create_ext(&options, &ext);
    if (host.bus == NULL || stdio_bus_start(host.bus) != STDIO_BUS_OK) {
        stdio_bus_destroy(host.bus);
        return 1;
    }
    host.fds[BUS].fd = stdio_bus_get_poll_fd(host.bus);
    signal(SIGHUP, on_signal);
    signal(SIGTERM, on_signal);
    run(&host);
    signal(SIGHUP, SIG_IGN); /* before `signalled` is gone */
    signal(SIGTERM, SIG_IGN);
    stdio_bus_destroy(host.bus);
    for (int i = OWN; i < FDS; i++) close(host.fds[i].fd);
    return host.answers == 4 && host.reloaded ? 0 : 1;
}
