/*
 * queue.c - messages that wait for a worker of their pool to become ready, or
 * for a turn of their session to end. Their requests are held by the pool's
 * waiting peer meanwhile.
 */
#include "dispatch.h"

#include <stdio.h>

#define EXPLAINED_MAX 160

static void on_queue_timer(sb_timer *timer);

bool sb_queue_init(stdio_bus_t *bus, sb_pool *pool)
{
    if (!sb_timer_register(&bus->ctx.loop.timers, &pool->queue_timer, on_queue_timer)) return false;
    sb_peer_init(&bus->ctx.router, &pool->waiting, true);
    pool->waiting.queue = true;
    return true;
}

static void free_items(sb_pool *pool)
{
    while (pool->head != NULL) {
        sb_queued *item = pool->head;
        pool->head = item->next;
        sb_free(item);
    }
    pool->tail = NULL;
    pool->queued_bytes = 0;
}

void sb_queue_free(stdio_bus_t *bus, sb_pool *pool)
{
    sb_timer_unregister(&bus->ctx.loop.timers, &pool->queue_timer);
    sb_router_remove(&bus->ctx.router, &pool->waiting);
    free_items(pool);
}

/* The session it was queued with; absent without one. */
static sb_span session_of(const sb_queued *item)
{
    static const sb_span none = {NULL, 0};
    sb_span session = {item->data, item->session_len};
    return item->session_len != SIZE_MAX ? session : none;
}

static size_t size_of(const sb_queued *item)
{
    return sizeof(sb_queued) + session_of(item).len + item->len;
}

/* Whether the request it stands for is not over. */
static bool is_live(const sb_router *router, const sb_queued *item)
{
    return item->request != SB_NONE && sb_router_request(router, item->request)->serial == item->serial;
}

static sb_queued *make_item(stdio_bus_t *bus, const sb_message *message, sb_span session)
{
    sb_queued *item = sb_alloc(sizeof(sb_queued) + session.len + message->frame.len);
    if (item == NULL) return NULL;
    item->next = NULL;
    item->due = message->sender->due;
    if (item->due == 0) {
        item->due = sb_clock_now(&bus->ctx.loop.clock) + (uint64_t)message->pool->config.init_timeout_sec * 1000u;
    }
    item->client = message->sender->peer->key;
    item->request = SB_NONE;
    item->turn = message->meaning == SB_MEANS_PROMPT;
    item->session_len = session.ptr != NULL ? session.len : SIZE_MAX;
    item->len = message->frame.len;
    if (session.ptr != NULL) memcpy(item->data, session.ptr, session.len);
    memcpy(item->data + session.len, message->frame.ptr, message->frame.len);
    return item;
}

static void append(stdio_bus_t *bus, sb_pool *pool, sb_queued *item)
{
    if (pool->tail != NULL) {
        pool->tail->next = item;
    } else {
        pool->head = item;
    }
    pool->tail = item;
    pool->queued_bytes += size_of(item);
    if (!sb_timer_is_set(&pool->queue_timer)) sb_timer_set(&bus->ctx.loop.timers, &pool->queue_timer, item->due);
}

int sb_pool_queue(stdio_bus_t *bus, const sb_message *message, uint32_t session, uint32_t *request)
{
    sb_router *router = &bus->ctx.router;
    sb_pool *pool = message->pool;
    sb_span id = sb_member_value(message->frame, message->envelope->id), name = {NULL, 0};
    uint32_t link = sb_router_link(router, message->sender->peer, &pool->waiting);
    char wire[SB_WIRE_MAX];
    sb_queued *item;
    if (session != SB_NONE && !sb_router_session_at(router, session)->own) {
        name = sb_text_span(&sb_router_session_at(router, session)->name);
    }
    if (link == SB_NONE) return STDIO_BUS_EFULL;
    if (message->envelope->kind == SB_KIND_REQUEST && router->pending >= bus->ctx.limits.max_pending) return STDIO_BUS_EFULL;
    item = make_item(bus, message, name);
    if (item == NULL) return STDIO_BUS_EFULL;
    if (pool->queued_bytes + size_of(item) > bus->ctx.limits.max_output_queue ||
        (message->envelope->kind == SB_KIND_REQUEST &&
         sb_router_ask(router, link, SB_DOWN, id, false, SB_NONE, wire, &item->request).ptr == NULL)) {
        sb_free(item);
        return STDIO_BUS_EFULL;
    }
    if (item->request != SB_NONE) {
        item->serial = sb_router_request(router, item->request)->serial;
        sb_router_request(router, item->request)->asked_at = sb_asked_at(bus, message->sender);
    }
    *request = item->request;
    append(bus, pool, item);
    return STDIO_BUS_OK;
}

/* Says why, as far as it is known. */
static void explain(const sb_pool *pool, sb_error *error, char text[EXPLAINED_MAX], char tail[SB_ANSWER_STDERR_MAX])
{
    const char *trouble = sb_handshake_trouble(pool);
    if (trouble != NULL) {
        snprintf(text, EXPLAINED_MAX, "%s: one %s", error->message, trouble);
        error->message = text;
    }
    sb_pool_explain(pool, error, tail);
}

/* The first of the queue, or several, have waited as long as they may. */
static void on_queue_timer(sb_timer *timer)
{
    sb_pool *pool = SB_CONTAINER(timer, sb_pool, queue_timer);
    stdio_bus_t *bus = pool->bus;
    sb_error error = sb_error_of(SB_RPC_WORKER_EXITED, "not_ready", "No worker of the pool became ready in time");
    char text[EXPLAINED_MAX], tail[SB_ANSWER_STDERR_MAX];
    /* With a ready worker it waited for the turn before it, or for its own worker. */
    if (pool->balance.count > 0) {
        error = sb_error_of(SB_RPC_OVERLOADED, "overloaded", "What the session had to wait for has not ended in time");
    }
    error.pool = pool->config.id;
    error.sent = 0;
    if (pool->balance.count == 0) explain(pool, &error, text, tail);
    while (pool->head != NULL && pool->head->due <= bus->ctx.loop.now) {
        sb_queued *item = pool->head;
        pool->head = item->next;
        if (pool->head == NULL) pool->tail = NULL;
        pool->queued_bytes -= size_of(item);
        if (item->request == SB_NONE) {
            sb_drop_message(bus, error.message);
        } else if (is_live(&bus->ctx.router, item)) {
            sb_dispatch_fail(bus, item->request, &error, -1, 0);
        }
        sb_free(item);
    }
    if (pool->head != NULL) sb_timer_set(&bus->ctx.loop.timers, timer, pool->head->due);
}

/* Sends one queued message on its way, unless it was given up meanwhile. */
static void send_queued(stdio_bus_t *bus, sb_pool *pool, sb_pool *to, const sb_queued *item)
{
    sb_router *router = &bus->ctx.router;
    sb_span session = session_of(item);
    sb_span frame = {item->data + session.len, item->len};
    sb_sender sender = {0};
    sender.peer = sb_router_linked_client(router, item->client, &pool->waiting);
    if (item->request != SB_NONE) {
        if (!is_live(router, item)) return;
        sender.asked_at = sb_router_request(router, item->request)->asked_at;
        sb_router_end(router, item->request);
    }
    if (sender.peer == NULL) {
        sb_drop_message(bus, "its client is gone");
        return;
    }
    sender.conn = sb_conn_of(bus, sender.peer);
    /* It was accepted, so from now on a refusal is an answer. */
    sender.answer_errors = true;
    sender.session = session;
    sender.due = item->due;
    sb_dispatch_to_pool(bus, &sender, to, frame);
}

/* Takes everything out of the queue, so that whatever happens while one item is dealt with can't touch the others. */
static sb_queued *take_all(stdio_bus_t *bus, sb_pool *pool)
{
    sb_queued *first = pool->head;
    sb_timer_cancel(&bus->ctx.loop.timers, &pool->queue_timer);
    pool->head = pool->tail = NULL;
    pool->queued_bytes = 0;
    return first;
}

/* The same with what is queued for one session, or just with its turns. */
static sb_queued *take_session(sb_pool *pool, sb_span session, bool only_turns)
{
    sb_queued *first = NULL, **last = &first, **at = &pool->head;
    pool->tail = NULL;
    while (*at != NULL) {
        sb_queued *item = *at;
        bool taken = (item->turn || !only_turns) && session_of(item).ptr != NULL && sb_span_eq(session_of(item), session);
        if (!taken) {
            pool->tail = item;
            at = &item->next;
            continue;
        }
        *at = item->next;
        item->next = NULL;
        pool->queued_bytes -= size_of(item);
        *last = item;
        last = &item->next;
    }
    return first;
}

static void send_all(stdio_bus_t *bus, sb_pool *pool, sb_pool *to, sb_queued *item)
{
    while (item != NULL) {
        sb_queued *next = item->next;
        send_queued(bus, pool, to, item);
        sb_free(item);
        item = next;
    }
}

void sb_pool_flush_queue(stdio_bus_t *bus, sb_pool *pool, sb_pool *to)
{
    send_all(bus, pool, to, take_all(bus, pool));
}

void sb_pool_flush_session(stdio_bus_t *bus, sb_pool *pool, sb_span session)
{
    send_all(bus, pool, pool, take_session(pool, session, false));
}

void sb_pool_fail_queue(stdio_bus_t *bus, sb_pool *pool)
{
    sb_error error = sb_error_of(SB_RPC_WORKER_EXITED, "worker_exited", "The pool has no running worker");
    char tail[SB_ANSWER_STDERR_MAX];
    sb_queued *item;
    sb_pool_explain(pool, &error, tail);
    if (bus->state != STDIO_BUS_STATE_RUNNING) {
        error = sb_error_of(SB_RPC_SHUTTING_DOWN, "shutting_down", "The bus is shutting down");
    }
    error.pool = pool->config.id;
    error.sent = 0;
    sb_dispatch_fail_queued(bus, pool, &error);
    item = take_all(bus, pool);
    while (item != NULL) {
        sb_queued *next = item->next;
        if (item->request == SB_NONE) sb_drop_message(bus, error.reason);
        sb_free(item);
        item = next;
    }
}

void sb_pool_end_turns(stdio_bus_t *bus, sb_pool *pool, sb_span session)
{
    sb_router *router = &bus->ctx.router;
    sb_queued *item = take_session(pool, session, true);
    while (item != NULL) {
        sb_queued *next = item->next;
        if (is_live(router, item)) {
            sb_peer *client = sb_router_asker(router, sb_router_request(router, item->request));
            sb_text id;
            sb_router_end_take(router, item->request, &id);
            sb_deliver_result(bus, client, sb_text_span(&id), sb_span_of("{\"stopReason\":\"cancelled\"}"));
            sb_text_free(&id);
        }
        sb_free(item);
        item = next;
    }
}
