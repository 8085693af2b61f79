#include "fixture.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <time.h>
#include <unistd.h>

seen_t seen;
worker_t played;

long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- callbacks ------------------------------------------------------------------------ */

static void call_inside(stdio_bus_t *bus)
{
    if (seen.inside != NULL) seen.inside(bus);
}

static seen_frame *keep_frame(const char *text, size_t len)
{
    seen_frame *frame = &seen.frame[seen.count];
    CHECK(text[len] == '\0');
    CHECK(seen.count++ < SEEN_MAX);
    snprintf(frame->text, sizeof frame->text, "%s", text);
    frame->len = len;
    return frame;
}

static void on_message(stdio_bus_t *bus, const char *msg, size_t len, void *user_data)
{
    (void)user_data;
    keep_frame(msg, len);
    call_inside(bus);
}

static void on_frame(stdio_bus_t *bus, const stdio_bus_frame_t *given, void *user_data)
{
    seen_frame *frame = keep_frame(given->data, given->len);
    (void)user_data;
    CHECK(given->size == sizeof *given);
    frame->kind = given->kind;
    frame->flags = given->flags;
    frame->client = given->client;
    frame->worker = given->worker;
    frame->generation = given->generation;
    if (given->id != NULL) snprintf(frame->id, sizeof frame->id, "%.*s", (int)given->id_len, given->id);
    if (given->request != NULL) {
        snprintf(frame->request, sizeof frame->request, "%.*s", (int)given->request_len, given->request);
    }
    if (given->session != NULL) {
        snprintf(frame->session, sizeof frame->session, "%.*s", (int)given->session_len, given->session);
    }
    call_inside(bus);
}

static void on_event(stdio_bus_t *bus, const stdio_bus_event_t *event, void *user_data)
{
    seen_event *kept = &seen.event[seen.events];
    (void)bus;
    (void)user_data;
    CHECK(event->size == sizeof *event && seen.events++ < EVENTS_MAX);
    kept->event = *event;
    if (event->pool != NULL) snprintf(kept->pool, sizeof kept->pool, "%s", event->pool);
    if (event->text != NULL) {
        CHECK(event->text[event->text_len] == '\0');
        snprintf(kept->text, sizeof kept->text, "%s", event->text);
    }
}

static void on_error(stdio_bus_t *bus, int code, const char *message, void *user_data)
{
    (void)bus;
    (void)user_data;
    seen.errors++;
    seen.code = code;
    snprintf(seen.error, sizeof seen.error, "%s", message);
}

static void on_log(stdio_bus_t *bus, int level, const char *message, void *user_data)
{
    (void)bus;
    (void)user_data;
    CHECK(level >= 0 && level <= 3);
    seen.logs[level]++;
    snprintf(seen.log[level], sizeof seen.log[level], "%s", message);
}

static void on_worker(stdio_bus_t *bus, int worker, const char *event, void *user_data)
{
    size_t len = strlen(seen.workers);
    (void)bus;
    (void)user_data;
    CHECK(worker >= 0);
    snprintf(seen.workers + len, sizeof seen.workers - len, "%s ", event);
}

static void on_connect(stdio_bus_t *bus, int client, const char *peer, void *user_data)
{
    (void)bus;
    (void)user_data;
    CHECK(client > 0);
    seen.connects++;
    snprintf(seen.peer, sizeof seen.peer, "%s", peer);
}

static void on_disconnect(stdio_bus_t *bus, int client, const char *reason, void *user_data)
{
    (void)bus;
    (void)user_data;
    CHECK(client > 0);
    seen.disconnects++;
    snprintf(seen.reason, sizeof seen.reason, "%s", reason);
}

int events_of(uint32_t kind)
{
    int count = 0;
    for (int i = 0; i < seen.events; i++) count += seen.event[i].event.kind == kind;
    return count;
}

const seen_event *last_event(uint32_t kind)
{
    for (int i = seen.events; i > 0; i--) {
        if (seen.event[i - 1].event.kind == kind) return &seen.event[i - 1];
    }
    return NULL;
}

/* ---- a bus -------------------------------------------------------------------------- */

void fill_options(stdio_bus_options_t *options, stdio_bus_ext_options_t *ext, const char *config)
{
    memset(options, 0, sizeof *options);
    memset(ext, 0, sizeof *ext);
    options->config_json = config;
    options->on_message = on_message;
    options->on_error = on_error;
    options->on_log = on_log;
    options->on_worker = on_worker;
    options->on_client_connect = on_connect;
    options->on_client_disconnect = on_disconnect;
    ext->size = sizeof *ext;
    ext->on_event = on_event;
}

stdio_bus_t *create(const char *config, unsigned flags)
{
    stdio_bus_options_t options;
    stdio_bus_ext_options_t ext;
    fill_options(&options, &ext, config);
    ext.flags = flags;
    return stdio_bus_create_ext(&options, &ext);
}

stdio_bus_t *create_with_frames(const char *config, unsigned flags)
{
    stdio_bus_options_t options;
    stdio_bus_ext_options_t ext;
    fill_options(&options, &ext, config);
    ext.flags = flags;
    ext.on_frame = on_frame;
    return stdio_bus_create_ext(&options, &ext);
}

void start_created(stdio_bus_t *bus)
{
    CHECK(bus != NULL);
    CHECK(stdio_bus_start(bus) == STDIO_BUS_OK);
    STEP_UNTIL(bus, stdio_bus_worker_count(bus) == 0);
    played = embed(bus, "p");
}

stdio_bus_t *start(const char *config, unsigned flags)
{
    stdio_bus_t *bus = create(config, flags);
    start_created(bus);
    return bus;
}

void finish(stdio_bus_t *bus)
{
    CHECK(stdio_bus_stop(bus, 1) == STDIO_BUS_OK);
    STEP_UNTIL(bus, stdio_bus_get_state(bus) == STDIO_BUS_STATE_STOPPED);
    stdio_bus_destroy(bus);
}

int ingest(stdio_bus_t *bus, const char *msg)
{
    return stdio_bus_ingest(bus, msg, strlen(msg));
}

stdio_bus_ext_stats_t ext_stats(stdio_bus_t *bus)
{
    stdio_bus_ext_stats_t stats = {0};
    stats.size = sizeof stats;
    CHECK(stdio_bus_ext_stats(bus, &stats) == STDIO_BUS_OK);
    return stats;
}

stdio_bus_worker_info_t worker_info(stdio_bus_t *bus, int worker)
{
    stdio_bus_worker_info_t info = {0};
    info.size = sizeof info;
    CHECK(stdio_bus_worker_info(bus, worker, &info) == STDIO_BUS_OK);
    return info;
}

stdio_bus_pool_info_t pool_info(stdio_bus_t *bus, int pool)
{
    stdio_bus_pool_info_t info = {0};
    info.size = sizeof info;
    CHECK(stdio_bus_pool_info(bus, pool, &info) == STDIO_BUS_OK);
    return info;
}

/* ---- reading what the bus writes -------------------------------------------------------- */

typedef struct {
    char *data;
    size_t at, len, cap;
} inbox;

static inbox *inbox_of(int fd)
{
    static inbox inboxes[1024];
    CHECK(fd >= 0 && fd < 1024);
    return &inboxes[fd];
}

static void empty_inbox(int fd)
{
    inbox *box = inbox_of(fd);
    box->at = box->len = 0;
}

/* Steps until more bytes have come. False at the end. */
static bool fill(stdio_bus_t *bus, int fd)
{
    inbox *box = inbox_of(fd);
    long deadline = now_ms() + BOUND_MS;
    struct pollfd wait = {fd, POLLIN, 0};
    ssize_t n;
    if (box->len == box->cap) {
        box->cap = box->cap > 0 ? box->cap * 2 : 4096;
        box->data = realloc(box->data, box->cap);
        CHECK(box->data != NULL);
    }
    do {
        if (now_ms() >= deadline) sb_test_fail(__FILE__, __LINE__, "nothing came in time");
        if (stdio_bus_get_state(bus) != STDIO_BUS_STATE_STOPPED) CHECK(stdio_bus_step(bus, 0) >= 0);
    } while (poll(&wait, 1, 10) != 1);
    n = read(fd, box->data + box->len, box->cap - box->len);
    if (n <= 0) return false;
    box->len += (size_t)n;
    return true;
}

static const char *next_line(stdio_bus_t *bus, int fd)
{
    inbox *box = inbox_of(fd);
    char *line, *newline;
    while (box->len == box->at || (newline = memchr(box->data + box->at, '\n', box->len - box->at)) == NULL) {
        if (!fill(bus, fd)) return NULL;
    }
    *newline = '\0';
    line = box->data + box->at;
    box->at = (size_t)(newline - box->data) + 1;
    return line;
}

static void next_bytes(stdio_bus_t *bus, int fd, char *out, size_t len)
{
    inbox *box = inbox_of(fd);
    while (box->len - box->at < len) CHECK(fill(bus, fd));
    memcpy(out, box->data + box->at, len);
    box->at += len;
}

static void write_all(int fd, const char *bytes, size_t len)
{
    CHECK(write(fd, bytes, len) == (ssize_t)len);
}

/* ---- workers the test plays -------------------------------------------------------------- */

worker_t embed(stdio_bus_t *bus, const char *pool)
{
    int in[2], out[2];
    worker_t worker;
    CHECK(pipe(in) == 0 && pipe(out) == 0);
    worker.id = stdio_bus_register_embedded_worker(bus, in[1], out[0], pool);
    worker.in = in[0];
    worker.out = out[1];
    CHECK(worker.id >= 0);
    empty_inbox(worker.in);
    return worker;
}

const char *reads(stdio_bus_t *bus, worker_t worker)
{
    return next_line(bus, worker.in);
}

void says(worker_t worker, const char *text)
{
    write_all(worker.out, text, strlen(text));
}

void goes(worker_t worker)
{
    close(worker.out);
}

const char *worker_reads(stdio_bus_t *bus)
{
    return reads(bus, played);
}

void worker_says(const char *text)
{
    says(played, text);
}

/* ---- clients ------------------------------------------------------------------------------ */

int connect_pair_with(stdio_bus_t *bus, const stdio_bus_client_options_t *options)
{
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    CHECK(stdio_bus_adopt_client_with(bus, pair[1], pair[1], options) > 0);
    empty_inbox(pair[0]);
    return pair[0];
}

int connect_pair(stdio_bus_t *bus)
{
    return connect_pair_with(bus, NULL);
}

int connect_listener(stdio_bus_t *bus, int listener)
{
    char address[128];
    struct sockaddr_un path = {.sun_family = AF_UNIX};
    struct sockaddr_in ip = {.sin_family = AF_INET};
    char *colon;
    int fd, before = stdio_bus_client_count(bus), result;
    CHECK(stdio_bus_listener_address(bus, listener, address, sizeof address) > 0);
    if (address[0] == '/') {
        fd = socket(AF_UNIX, SOCK_STREAM, 0);
        snprintf(path.sun_path, sizeof path.sun_path, "%.*s", (int)sizeof path.sun_path - 1, address);
        result = connect(fd, (struct sockaddr *)&path, sizeof path);
    } else {
        colon = strrchr(address, ':');
        CHECK(colon != NULL);
        *colon = '\0';
        fd = socket(AF_INET, SOCK_STREAM, 0);
        ip.sin_port = htons((uint16_t)atoi(colon + 1));
        CHECK(inet_pton(AF_INET, address, &ip.sin_addr) == 1);
        result = connect(fd, (struct sockaddr *)&ip, sizeof ip);
    }
    CHECK(result == 0);
    STEP_UNTIL(bus, stdio_bus_client_count(bus) > before);
    empty_inbox(fd);
    return fd;
}

void client_sends(int fd, const void *bytes, size_t len)
{
    CHECK(send(fd, bytes, len, MSG_NOSIGNAL) == (ssize_t)len);
}

void client_says(int fd, const char *text)
{
    client_sends(fd, text, strlen(text));
}

const char *client_line(stdio_bus_t *bus, int fd)
{
    return next_line(bus, fd);
}

void client_gets(stdio_bus_t *bus, int fd, void *bytes, size_t len)
{
    next_bytes(bus, fd, bytes, len);
}

void client_hears(stdio_bus_t *bus, int fd, const char *want)
{
    char got[4096];
    size_t len = strlen(want);
    CHECK(len < sizeof got);
    next_bytes(bus, fd, got, len);
    got[len] = '\0';
    CHECK_STR(got, want);
}
