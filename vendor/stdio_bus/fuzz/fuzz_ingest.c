/*
 * fuzz_ingest.c - the whole way of messages through one real bus, whose
 * workers and clients are this program itself on the other end of pipes and
 * sockets. The bus lives as long as the process; each input registers workers
 * and clients anew, and afterwards nothing of them may be left.
 *
 * Input: lines. The first byte says what happens, the rest is its text; small
 * letters step the bus afterwards, capitals don't and send no newline.
 *
 *   a A   client 0 sends a line, or a part of one       w W   the same from the worker of pool p
 *   b B   client 1, which frames by length              v V   from the one of q (acp)   t T   from the one of r (mcp)
 *   i I   the host ingests                              j J   the host submits beside options: SESSION POOL TEXT
 *   c C   the host cancels this id                      e E   ends this session
 *   y Y   every request a worker has read is answered   z Z   clients answer every request they have read
 *   h H   client 0 or 1 ends its side                   x X   client 0 or 1 is gone; a new one comes
 *   k K   worker 0, 1 or 2 closes its stdout            u U   worker 0, 1 or 2 is unregistered; a new one comes
 *   s S   steps only
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../src/bus.h"
#include "../src/scan.h"
#include "fuzz.h"

#define OPS_MAX 64
#define READ_MAX (1u << 16)

static const char config[] =
    "{\"pools\":[{\"id\":\"p\",\"command\":\"true\",\"restart\":\"never\"},"
    "{\"id\":\"q\",\"command\":\"true\",\"restart\":\"never\",\"protocol\":\"acp\"},"
    "{\"id\":\"r\",\"command\":\"true\",\"restart\":\"never\",\"protocol\":\"mcp\"}],"
    "\"default_pool\":\"p\",\"limits\":{\"max_input_buffer\":1024,\"max_output_queue\":8192,\"max_sessions\":6,\"max_pending\":12}}";

typedef struct {
    int id; /* the bus's, or -1 */
    int in, out;
    bool by_length;
    char read[READ_MAX]; /* what it has read and not looked at */
    size_t len;
} party;

static stdio_bus_t *bus;
static party clients[2], workers[3];
static const char *const pool_of[3] = {"p", "q", "r"};
static long owed; /* answers the host has still to get */

/* ---- the host --------------------------------------------------------------------- */

static void on_frame(stdio_bus_t *b, const stdio_bus_frame_t *frame, void *user_data)
{
    sb_envelope envelope;
    sb_span text = {frame->data, frame->len};
    (void)b;
    (void)user_data;
    CHECK(frame->size == sizeof *frame && frame->data[frame->len] == '\0' && frame->client == 0);
    CHECK(memchr(frame->data, '\n', frame->len) == NULL);
    CHECK(sb_envelope_scan(text, &envelope) == SB_ENVELOPE_OK && (uint32_t)envelope.kind == frame->kind);
    if (frame->id != NULL) {
        CHECK(frame->id >= frame->data && frame->id + frame->id_len <= frame->data + frame->len);
        sb_span id = {frame->id, frame->id_len};
        CHECK(sb_span_eq(sb_member_value(text, envelope.id), id));
    }
    if (frame->kind == STDIO_BUS_FRAME_RESPONSE) CHECK(--owed >= 0);
}

static void on_error(stdio_bus_t *b, int code, const char *message, void *user_data)
{
    (void)b;
    (void)code;
    (void)message;
    (void)user_data;
}

static void on_log(stdio_bus_t *b, int level, const char *message, void *user_data)
{
    (void)b;
    (void)level;
    (void)message;
    (void)user_data;
}

static void on_event(stdio_bus_t *b, const stdio_bus_event_t *event, void *user_data)
{
    (void)b;
    (void)user_data;
    CHECK(event->size == sizeof *event);
    if (event->text != NULL) CHECK(event->text[event->text_len] == '\0');
}

static void step(void)
{
    CHECK(stdio_bus_step(bus, 0) >= 0);
}

/* Whether an accepted message gets an answer: a request does, and by its refusal what is no message. */
static bool is_answered(sb_span text, const stdio_bus_submit_options_t *options)
{
    sb_envelope envelope;
    bool refusals = options != NULL && (options->flags & STDIO_BUS_SUBMIT_ANSWER_ERRORS);
    if (sb_envelope_scan(text, &envelope) != SB_ENVELOPE_OK) return false;
    return envelope.kind == SB_KIND_REQUEST || (refusals && envelope.kind == SB_KIND_INVALID);
}

/* MCP: who cancels a request gets no answer any more. */
static bool ends_a_wait(sb_span text)
{
    sb_envelope envelope;
    if (sb_envelope_scan(text, &envelope) != SB_ENVELOPE_OK || envelope.kind != SB_KIND_NOTIFICATION) return false;
    return envelope.method.end != 0 && sb_json_string_is(sb_member_value(text, envelope.method), "notifications/cancelled");
}

static void host_sends(sb_span text, const stdio_bus_submit_options_t *options)
{
    bool answered = is_answered(text, options);
    uint32_t asked = bus->host.asked;
    /* Counted before: an answer may come from inside the call. */
    owed += answered;
    if (stdio_bus_submit(bus, text.ptr, text.len, options) != STDIO_BUS_OK) owed -= answered;
    if (ends_a_wait(text)) owed -= asked - bus->host.asked;
}

/* The bytes up to the next space, which is skipped. */
static sb_span take_word(sb_span *text)
{
    const char *space = text->len > 0 ? memchr(text->ptr, ' ', text->len) : NULL;
    sb_span word = {text->ptr, space != NULL ? (size_t)(space - text->ptr) : text->len};
    size_t taken = word.len + (space != NULL);
    text->ptr += taken;
    text->len -= taken;
    return word;
}

static void host_submits(sb_span text)
{
    stdio_bus_submit_options_t options = {0};
    sb_span session = take_word(&text), pool = take_word(&text);
    options.size = sizeof options;
    /* Of a repeated member only the bus knows whether it is one too many. */
    sb_envelope envelope;
    if (sb_envelope_scan(text, &envelope) == SB_ENVELOPE_OK && !envelope.repeated && (text.len & 1)) {
        options.flags = STDIO_BUS_SUBMIT_ANSWER_ERRORS;
    }
    if (session.len > 0) {
        options.session = session.ptr;
        options.session_len = session.len;
    }
    if (pool.len > 0) {
        options.pool = pool.ptr;
        options.pool_len = pool.len;
    }
    host_sends(text, &options);
}

/* ---- workers and clients ------------------------------------------------------------ */

static void unblock(int fd)
{
    CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
}

static void close_fd(int *fd)
{
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

static void connect_client(party *client, bool by_length)
{
    stdio_bus_client_options_t options = {0};
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    unblock(pair[0]);
    options.size = sizeof options;
    options.framing = by_length ? STDIO_BUS_FRAMING_LENGTH : STDIO_BUS_FRAMING_NDJSON;
    client->by_length = by_length;
    client->len = 0;
    client->in = client->out = pair[0];
    client->id = stdio_bus_adopt_client_with(bus, pair[1], pair[1], &options);
    CHECK(client->id > 0);
}

static void disconnect_client(party *client)
{
    client->in = -1;
    close_fd(&client->out);
}

static void register_worker(size_t number)
{
    int in[2], out[2];
    party *worker = &workers[number];
    CHECK(pipe(in) == 0 && pipe(out) == 0);
#ifdef F_SETPIPE_SZ
    /* So small that outboxes come into play. */
    fcntl(in[1], F_SETPIPE_SZ, 4096);
#endif
    unblock(in[0]);
    unblock(out[1]);
    worker->in = in[0];
    worker->out = out[1];
    worker->len = 0;
    worker->id = stdio_bus_register_embedded_worker(bus, in[1], out[0], pool_of[number]);
    CHECK(worker->id >= 0);
}

static void unregister_worker(size_t number)
{
    party *worker = &workers[number];
    CHECK(stdio_bus_unregister_embedded_worker(bus, worker->id) == STDIO_BUS_OK);
    close_fd(&worker->in);
    close_fd(&worker->out);
}

/* What doesn't fit is lost, as with a peer that dies. */
static void say(party *who, const char *bytes, size_t len)
{
    ssize_t sent;
    if (who->out < 0 || len == 0) return;
    do sent = who->in == who->out ? send(who->out, bytes, len, MSG_NOSIGNAL) : write(who->out, bytes, len);
    while (sent < 0 && errno == EINTR);
}

static void say_frame(party *who, sb_span text, bool whole)
{
    char head[4];
    if (whole && who->by_length) {
        for (size_t i = 0; i < 4; i++) head[i] = (char)(text.len >> (24 - 8 * i) & 0xff);
        say(who, head, sizeof head);
    }
    say(who, text.ptr, text.len);
    if (whole && !who->by_length) say(who, "\n", 1);
}

/* The next frame of what the bus has sent; absent if there is no whole one. */
static sb_span next_frame(const party *who, size_t *pos)
{
    sb_span frame = {NULL, 0};
    const char *data = who->read + *pos;
    size_t left = who->len - *pos;
    if (who->by_length) {
        size_t size = 0;
        if (left < 4) return frame;
        for (size_t i = 0; i < 4; i++) size = size << 8 | (unsigned char)data[i];
        if (left - 4 < size) return frame;
        frame.ptr = data + 4;
        frame.len = size;
        *pos += 4 + size;
    } else {
        const char *newline = memchr(data, '\n', left);
        if (newline == NULL) return frame;
        frame.ptr = data;
        frame.len = (size_t)(newline - data);
        *pos += frame.len + 1;
    }
    return frame;
}

/* Reads what there is. What the bus sends is always one message a frame; requests among them are answered. */
static void listen_to(party *who, bool answer)
{
    size_t pos = 0;
    ssize_t got;
    sb_span frame;
    while (who->in >= 0 && who->len < READ_MAX &&
           (got = read(who->in, who->read + who->len, READ_MAX - who->len)) > 0) {
        who->len += (size_t)got;
    }
    while ((frame = next_frame(who, &pos)).ptr != NULL) {
        sb_envelope envelope;
        char text[2048];
        CHECK(sb_envelope_scan(frame, &envelope) == SB_ENVELOPE_OK && envelope.kind != SB_KIND_INVALID);
        if (!answer || envelope.kind != SB_KIND_REQUEST) continue;
        sb_span id = sb_member_value(frame, envelope.id), said = {text, 0};
        int len = snprintf(text, sizeof text, "{\"id\":%.*s,\"result\":{\"sessionId\":\"n\"}}", (int)id.len, id.ptr);
        CHECK(len > 0 && (size_t)len < sizeof text);
        said.len = (size_t)len;
        say_frame(who, said, true);
    }
    memmove(who->read, who->read + pos, who->len - pos);
    who->len -= pos;
}

/* ---- one input --------------------------------------------------------------------------- */

static void create_bus(void)
{
    stdio_bus_options_t options = {0};
    stdio_bus_ext_options_t ext = {0};
    options.config_json = config;
    options.on_error = on_error;
    options.on_log = on_log;
    ext.size = sizeof ext;
    ext.flags = STDIO_BUS_CREATE_POLL;
    ext.on_frame = on_frame;
    ext.on_event = on_event;
    signal(SIGPIPE, SIG_IGN); /* of this program's own writes */
    bus = stdio_bus_create_ext(&options, &ext);
    CHECK(bus != NULL && stdio_bus_start(bus) == STDIO_BUS_OK);
    while (stdio_bus_worker_count(bus) > 0) CHECK(stdio_bus_step(bus, 100) >= 0);
}

static void run_op(char op, sb_span text)
{
    bool capital = op >= 'A' && op <= 'Z';
    size_t number = text.len > 0 && text.ptr[0] == '1', worker = text.len > 0 && text.ptr[0] == '2' ? 2 : number;
    switch (capital ? op - 'A' + 'a' : op) {
    case 'a': say_frame(&clients[0], text, !capital); break;
    case 'b': say_frame(&clients[1], text, !capital); break;
    case 'w': say_frame(&workers[0], text, !capital); break;
    case 'v': say_frame(&workers[1], text, !capital); break;
    case 't': say_frame(&workers[2], text, !capital); break;
    case 'i': host_sends(text, NULL); break;
    case 'j': host_submits(text); break;
    case 'c': owed -= text.len > 0 && stdio_bus_cancel(bus, text.ptr, text.len) == STDIO_BUS_OK; break;
    case 'e':
        if (text.len > 0) stdio_bus_end_session(bus, NULL, text.ptr, text.len);
        break;
    case 'y':
        for (size_t i = 0; i < SB_COUNT(workers); i++) listen_to(&workers[i], true);
        break;
    case 'z':
        for (size_t i = 0; i < 2; i++) listen_to(&clients[i], true);
        break;
    case 'h':
        if (clients[number].out >= 0) shutdown(clients[number].out, SHUT_WR);
        break;
    case 'x':
        disconnect_client(&clients[number]);
        connect_client(&clients[number], number == 1);
        break;
    case 'k': close_fd(&workers[worker].out); break;
    case 'u':
        unregister_worker(worker);
        register_worker(worker);
        break;
    default: break;
    }
    if (!capital) step();
}

/* Those that clients named outlive everything but end_session, and the host is a client that does not leave. */
static void end_sessions(void)
{
    sb_router *router = &bus->ctx.router;
    CHECK(stdio_bus_session_count(bus) <= 7);
    while (router->idle.oldest != SB_NONE) {
        CHECK(sb_router_session_at(router, router->idle.oldest)->worker == NULL);
        sb_session_end(router, router->idle.oldest);
    }
    for (uint32_t entry = 0; entry < router->sessions.fresh; entry++) {
        const sb_session *session = sb_router_session_at(router, entry);
        if (session->pool == SB_NONE) continue;
        CHECK(session->own && session->owner == &bus->host && session->worker == NULL);
        CHECK(session->requests == SB_NONE && session->ending == SB_NONE);
        sb_session_end(router, entry);
    }
}

/* What the pools have learned stays; forgotten here, so that each input starts alike. */
static void forget_handshakes(void)
{
    for (size_t i = 0; i < bus->pool_count; i++) {
        sb_pool *pool = bus->pools[i];
        CHECK(pool->head == NULL && pool->queued_bytes == 0);
        sb_router_remove(&bus->ctx.router, &pool->waiting); /* its links to the host */
        sb_timer_cancel(&bus->ctx.loop.timers, &pool->hello.timer);
        pool->hello.protocol = pool->config.protocol;
        pool->hello.era = SB_ERA_UNKNOWN;
        pool->hello.params.len = pool->hello.result.len = 0;
        pool->hello.asker = SB_NONE;
    }
}

static void check_nothing_is_left(void)
{
    sb_router *router = &bus->ctx.router;
    stdio_bus_ext_stats_t stats = {0};
    for (int i = 0; i < 100 && (stdio_bus_client_count(bus) > 0 || owed > 0); i++) step();
    step();
    stats.size = sizeof stats;
    CHECK(stdio_bus_ext_stats(bus, &stats) == STDIO_BUS_OK);
    CHECK(owed == 0);
    CHECK(stdio_bus_client_count(bus) == 0 && stdio_bus_worker_count(bus) == 0);
    end_sessions();
    forget_handshakes();
    /* The host may still answer what workers that are gone have asked it. */
    while (bus->host.tombs.head != SB_NONE) sb_router_end(router, bus->host.tombs.head);
    CHECK(stdio_bus_pending_count(bus) == 0 && stdio_bus_session_count(bus) == 0);
    CHECK(router->links.used == 0 && router->requests.used == 0 && router->sessions.used == 0);
    CHECK(stats.tombstones == 0 && stats.outbox_bytes == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *p = (const char *)data, *end = p + size;
    if (size > FUZZ_INPUT_MAX) return 0;
    if (bus == NULL) create_bus();
    for (size_t i = 0; i < SB_COUNT(workers); i++) register_worker(i);
    for (size_t i = 0; i < 2; i++) connect_client(&clients[i], i == 1);
    for (int ops = 0; p < end && ops < OPS_MAX; ops++) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        const char *stop = newline != NULL ? newline : end;
        sb_span text = {p + 1, (size_t)(stop - p) - 1};
        if (stop > p) run_op(*p, text);
        p = newline != NULL ? newline + 1 : end;
    }
    for (size_t i = 0; i < 2; i++) listen_to(&clients[i], false);
    for (size_t i = 0; i < SB_COUNT(workers); i++) {
        listen_to(&workers[i], false);
        unregister_worker(i);
    }
    step();
    for (size_t i = 0; i < 2; i++) {
        listen_to(&clients[i], false);
        disconnect_client(&clients[i]);
    }
    check_nothing_is_left();
    return 0;
}
