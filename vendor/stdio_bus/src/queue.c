/*
 * queue.c - messages that wait for a worker of their pool to become ready, or
 * for a turn of their session to end. Their requests are held by the pool's
 * waiting peer meanwhile.
 */
#include "dispatch.h"

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

static size_t queued_size(size_t session_len, size_t len)
{
    return sizeof(sb_queued) + session_len + len;
}

int sb_pool_queue(stdio_bus_t *bus, sb_pool *pool, const sb_sender *sender, sb_span session, sb_span frame, sb_span id,
                  uint32_t *request)
{
    sb_router *router = &bus->ctx.router;
    size_t size = queued_size(session.len, frame.len);
    uint32_t link = sb_router_link(router, sender->peer, &pool->waiting);
    char wire[SB_WIRE_MAX];
    sb_queued *item;
    if (link == SB_NONE || pool->queued_bytes + size > bus->ctx.limits.max_output_queue) return STDIO_BUS_EFULL;
    if (id.ptr != NULL && router->pending >= bus->ctx.limits.max_pending) return STDIO_BUS_EFULL;
    item = sb_alloc(size);
    if (item == NULL) return STDIO_BUS_EFULL;
    item->next = NULL;
    item->due = sender->due;
    if (item->due == 0) {
        item->due = sb_clock_now(&bus->ctx.loop.clock) + (uint64_t)pool->config.init_timeout_sec * 1000u;
    }
    item->client = sender->peer->key;
    item->request = SB_NONE;
    item->session_len = session.ptr != NULL ? session.len : SIZE_MAX;
    item->len = frame.len;
    if (session.ptr != NULL) memcpy(item->data, session.ptr, session.len);
    memcpy(item->data + (session.ptr != NULL ? session.len : 0), frame.ptr, frame.len);
    if (id.ptr != NULL) {
        if (sb_router_ask(router, link, SB_DOWN, id, false, SB_NONE, wire, &item->request).ptr == NULL) {
            sb_free(item);
            return STDIO_BUS_EFULL;
        }
        item->serial = sb_router_request(router, item->request)->serial;
    }
    *request = item->request;
    if (pool->tail != NULL) {
        pool->tail->next = item;
    } else {
        pool->head = item;
    }
    pool->tail = item;
    pool->queued_bytes += size;
    if (!sb_timer_is_set(&pool->queue_timer)) sb_timer_set(&bus->ctx.loop.timers, &pool->queue_timer, item->due);
    return STDIO_BUS_OK;
}

/* The first of the queue, or several, have waited as long as they may. */
static void on_queue_timer(sb_timer *timer)
{
    sb_pool *pool = SB_CONTAINER(timer, sb_pool, queue_timer);
    stdio_bus_t *bus = pool->bus;
    sb_error error = sb_error_of(SB_RPC_WORKER_EXITED, "worker_exited", "No worker of the pool became ready in time");
    /* With a ready worker it was a turn that waited for the one before it. */
    if (pool->balance.count > 0) {
        error = sb_error_of(SB_RPC_OVERLOADED, "overloaded", "The session's cancelled turn has not ended in time");
    }
    error.pool = pool->config.id;
    error.sent = 0;
    while (pool->head != NULL && pool->head->due <= bus->ctx.loop.now) {
        sb_queued *item = pool->head;
        pool->head = item->next;
        if (pool->head == NULL) pool->tail = NULL;
        pool->queued_bytes -= queued_size(item->session_len != SIZE_MAX ? item->session_len : 0, item->len);
        if (item->request == SB_NONE) {
            sb_drop_message(bus, error.message);
        } else if (sb_router_request(&bus->ctx.router, item->request)->serial == item->serial) {
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
    bool has_session = item->session_len != SIZE_MAX;
    sb_span session = {has_session ? item->data : NULL, has_session ? item->session_len : 0};
    sb_span frame = {item->data + session.len, item->len};
    sb_sender sender = {0};
    sender.peer = sb_router_linked_client(router, item->client, &pool->waiting);
    if (item->request != SB_NONE) {
        const sb_request *request = sb_router_request(router, item->request);
        if (request->serial != item->serial) return;
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

/* Empties the queue; what the host does while it hears of one item can't touch the others. */
static sb_queued *take_all(stdio_bus_t *bus, sb_pool *pool)
{
    sb_queued *first = pool->head;
    sb_timer_cancel(&bus->ctx.loop.timers, &pool->queue_timer);
    pool->head = pool->tail = NULL;
    pool->queued_bytes = 0;
    return first;
}

void sb_pool_flush_queue(stdio_bus_t *bus, sb_pool *pool, sb_pool *to)
{
    sb_queued *item = take_all(bus, pool);
    while (item != NULL) {
        sb_queued *next = item->next;
        send_queued(bus, pool, to, item);
        sb_free(item);
        item = next;
    }
}

void sb_pool_fail_queue(stdio_bus_t *bus, sb_pool *pool)
{
    sb_error error = sb_error_of(SB_RPC_WORKER_EXITED, "worker_exited", "The pool has no running worker");
    sb_queued *item;
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

/* Whether it is a turn of this session. */
static bool is_turn_of(stdio_bus_t *bus, const sb_queued *item, sb_span session)
{
    sb_span frame = {item->data + (item->session_len != SIZE_MAX ? item->session_len : 0), item->len}, token;
    sb_envelope envelope;
    sb_envelope_scan(frame, &envelope);
    if (sb_protocol_client_means(SB_PROTOCOL_ACP, sb_member_value(frame, envelope.method)) != SB_MEANS_PROMPT) return false;
    token = sb_protocol_session(sb_member_value(frame, envelope.params));
    return token.ptr != NULL && sb_span_eq(sb_plain_text(bus, token), session);
}

/* A live turn of this session that waits in the queue, or SB_NONE. */
static uint32_t find_held(stdio_bus_t *bus, const sb_pool *pool, sb_span session)
{
    const sb_router *router = &bus->ctx.router;
    for (const sb_queued *item = pool->head; item != NULL; item = item->next) {
        if (item->request == SB_NONE || sb_router_request(router, item->request)->serial != item->serial) continue;
        if (is_turn_of(bus, item, session)) return item->request;
    }
    return SB_NONE;
}

void sb_pool_end_held(stdio_bus_t *bus, sb_pool *pool, sb_span session)
{
    sb_router *router = &bus->ctx.router;
    uint32_t entry;
    /* From the beginning each time: a client that can't take the answer is closed, and the queue may change. */
    while ((entry = find_held(bus, pool, session)) != SB_NONE) {
        sb_peer *client = sb_router_asker(router, sb_router_request(router, entry));
        sb_text id;
        sb_router_end_take(router, entry, &id);
        sb_deliver_result(bus, client, sb_text_span(&id), sb_span_of("{\"stopReason\":\"cancelled\"}"));
        sb_text_free(&id);
    }
}
