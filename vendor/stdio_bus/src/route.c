#include <stdio.h>

#include "dispatch.h"

sb_span sb_plain_text(stdio_bus_t *bus, sb_span token)
{
    sb_span text = {token.ptr + 1, token.len - 2};
    if (memchr(text.ptr, '\\', text.len) == NULL) return text;
    bus->plain.pos = bus->plain.len = 0;
    text.ptr = NULL;
    if (sb_buf_reserve(&bus->plain, token.len)) {
        text.len = sb_json_decode(token, bus->plain.data);
        if (text.len != SIZE_MAX) text.ptr = bus->plain.data;
    }
    return text;
}

sb_span sb_session_token(const sb_envelope *envelope, sb_span frame)
{
    sb_span token = sb_member_value(frame, envelope->session);
    if (token.ptr == NULL && envelope->params.end != 0) {
        sb_span params = sb_member_value(frame, envelope->params);
        if (params.ptr[0] == '{') token = sb_json_find(params, "sessionId");
        if (!sb_is_text(token)) token.ptr = NULL;
    }
    return token;
}

static sb_pool *pool_by_token(stdio_bus_t *bus, sb_span token)
{
    for (size_t i = 0; token.ptr != NULL && i < bus->pool_count; i++) {
        if (sb_json_string_is(token, bus->pools[i]->config.id)) return bus->pools[i];
    }
    return NULL;
}

/* The only pool that knows this session. */
static sb_pool *pool_of_session(stdio_bus_t *bus, sb_span session)
{
    sb_pool *found = NULL;
    if (session.ptr == NULL) return NULL;
    for (size_t i = 0; i < bus->pool_count; i++) {
        if (sb_router_session(&bus->ctx.router, bus->pools[i]->key, session, false) == SB_NONE) continue;
        if (found != NULL) return NULL;
        found = bus->pools[i];
    }
    return found;
}

/* The pool that is named, beside the message or in it; NULL with a text if there is none of that name. */
static sb_pool *named_pool(stdio_bus_t *bus, sb_span name, sb_span token, char why[256])
{
    sb_pool *pool = name.ptr != NULL ? sb_pool_named(bus, name) : pool_by_token(bus, token);
    if (pool == NULL) {
        sb_span said = name.ptr != NULL ? name : token;
        snprintf(why, 256, "Unknown pool: %.*s", (int)(said.len < 128 ? said.len : 128), said.ptr);
    }
    return pool;
}

/* The pool a message is for; NULL with a text that says why none can be told. */
static sb_pool *find_pool(stdio_bus_t *bus, const sb_sender *sender, const sb_envelope *envelope, sb_span frame,
                          sb_span session, char why[256])
{
    sb_pool *pool;
    size_t used;
    if (sender->pool.ptr != NULL || envelope->pool.end != 0) {
        return named_pool(bus, sender->pool, sb_member_value(frame, envelope->pool), why);
    }
    pool = pool_by_token(bus, sb_member_value(frame, envelope->agent));
    if (pool == NULL && sender->conn != NULL && sender->conn->pool != NULL) return sender->conn->pool;
    if (pool == NULL && bus->pool_count == 1) return bus->pools[0];
    if (pool == NULL) pool = pool_of_session(bus, session);
    if (pool == NULL) pool = bus->default_pool;
    if (pool != NULL) return pool;
    used = (size_t)snprintf(why, 256, "No pool named; there are:");
    for (size_t i = 0; i < bus->pool_count && used < 256; i++) {
        used += (size_t)snprintf(why + used, 256 - used, " %s", bus->pools[i]->config.id);
    }
    return NULL;
}

/* The worker for a message: the session's, if it has one that takes messages, else the least loaded. NULL: none. */
static sb_worker *find_worker(stdio_bus_t *bus, sb_pool *pool, uint32_t session)
{
    sb_balance_node *node;
    sb_peer *peer;
    if (session != SB_NONE) {
        peer = sb_router_session_at(&bus->ctx.router, session)->worker;
        if (peer != NULL && sb_worker_takes(SB_CONTAINER(peer, sb_worker, peer))) {
            return SB_CONTAINER(peer, sb_worker, peer);
        }
    }
    node = sb_balance_pick(&pool->balance);
    if (node == NULL) return NULL;
    peer = SB_CONTAINER(node, sb_peer, node);
    if (session != SB_NONE) sb_session_bind(&bus->ctx.router, session, peer);
    return SB_CONTAINER(peer, sb_worker, peer);
}

/* ---- client to worker --------------------------------------------------------------------- */

static sb_error overloaded(stdio_bus_t *bus, const sb_pool *pool, const char *message)
{
    sb_error error = sb_error_of(SB_RPC_OVERLOADED, "overloaded", message);
    bus->more.overload_refusals++;
    error.pool = pool->config.id;
    error.sent = 0;
    return error;
}

static int to_worker(stdio_bus_t *bus, const sb_sender *sender, sb_pool *pool, sb_worker *worker, uint32_t link,
                     uint32_t session, const sb_envelope *envelope, sb_span frame)
{
    sb_router *router = &bus->ctx.router;
    sb_edits edits;
    char wire[SB_WIRE_MAX];
    uint32_t request = SB_NONE;
    sb_error error = sb_error_of(SB_RPC_OVERLOADED, "overloaded", "Out of memory");
    edits.count = 0;
    if (sb_issues_ids(pool) && !sb_splice_drop_routing(&edits, frame, envelope, true)) {
        error = sb_error_of(SB_RPC_INVALID_REQUEST, "invalid_request", "Too many repeated routing members");
        return sb_refuse_message(bus, sender, envelope, frame, &error, STDIO_BUS_ERR_INVALID);
    }
    if (envelope->kind == SB_KIND_REQUEST) {
        sb_span id = sb_member_value(frame, envelope->id);
        sb_span token = sb_router_ask(router, link, SB_DOWN, id, sb_issues_ids(pool), session, wire, &request);
        if (token.ptr == NULL) return sb_refuse_message(bus, sender, envelope, frame, &error, STDIO_BUS_EFULL);
        sb_router_request(router, request)->at = worker->sink.queued;
        pool->requests++;
        if (sb_router_request(router, request)->issued != 0) sb_splice_replace(&edits, envelope->id, token);
    }
    if (sb_dispatch_send(bus, worker, link, frame, edits.count > 0 ? &edits : NULL)) return STDIO_BUS_OK;
    if (request != SB_NONE) sb_router_end(router, request);
    return sb_refuse_message(bus, sender, envelope, frame, &error, STDIO_BUS_EFULL);
}

static int no_worker(stdio_bus_t *bus, const sb_sender *sender, sb_pool *pool, sb_span session,
                     const sb_envelope *envelope, sb_span frame)
{
    sb_error error = sb_error_of(SB_RPC_WORKER_EXITED, "worker_exited", "The pool has no running worker");
    int status = STDIO_BUS_ERR_WORKER;
    if (sb_pool_recovers(bus, pool)) {
        status = sb_pool_queue(bus, pool, sender, session, frame, sb_member_value(frame, envelope->id));
        if (status == STDIO_BUS_OK) return STDIO_BUS_OK;
        error = overloaded(bus, pool, "The pool's queue is full");
        return sb_refuse_message(bus, sender, envelope, frame, &error, status);
    }
    error.pool = pool->config.id;
    error.sent = 0;
    return sb_refuse_message(bus, sender, envelope, frame, &error, status);
}

/* Why a message can't be queued for this worker just now; NULL if it can. */
static const char *no_room(const stdio_bus_t *bus, const sb_worker *worker, uint32_t link, const sb_envelope *envelope,
                           size_t len)
{
    const sb_limits *limits = &bus->ctx.limits;
    size_t queued = worker->sink.outbox.bytes, own = sb_router_link_at(&bus->ctx.router, link)->queued;
    if (envelope->kind == SB_KIND_REQUEST && bus->ctx.router.pending >= limits->max_pending) {
        return "Too many requests are pending";
    }
    /* One message of any size passes, as long as nothing is before it. */
    if (queued > 0 && queued + len > limits->max_output_queue) return "The worker's queue is full";
    if (own > 0 && own + len > limits->max_output_queue / 2) return "This client's share of the worker's queue is full";
    return NULL;
}

static int send_to_pool(stdio_bus_t *bus, const sb_sender *sender, sb_pool *pool, sb_span session_name,
                 const sb_envelope *envelope, sb_span frame)
{
    sb_router *router = &bus->ctx.router;
    uint32_t session = SB_NONE, link;
    const char *reason = "Too many sessions";
    sb_worker *worker;
    sb_error error;
    if (session_name.ptr != NULL) {
        sb_bus_tell_time(bus);
        session = sb_router_session(router, pool->key, session_name, true);
    }
    if (session_name.ptr == NULL || session != SB_NONE) {
        worker = find_worker(bus, pool, session);
        if (worker == NULL) return no_worker(bus, sender, pool, session_name, envelope, frame);
        link = sb_router_link(router, sender->peer, &worker->peer);
        reason = link == SB_NONE ? "Out of memory" : no_room(bus, worker, link, envelope, frame.len);
        if (reason == NULL) {
            /* It belongs to whoever uses it first, and to the next one when that has left. */
            if (session != SB_NONE && sb_router_session_at(router, session)->owner == NULL) {
                sb_session_give(router, session, sender->peer);
            }
            return to_worker(bus, sender, pool, worker, link, session, envelope, frame);
        }
        worker->refused = true;
    }
    error = overloaded(bus, pool, reason);
    return sb_refuse_message(bus, sender, envelope, frame, &error, STDIO_BUS_EFULL);
}

int sb_dispatch_to_pool(stdio_bus_t *bus, const sb_sender *sender, sb_pool *pool, sb_span session, sb_span frame)
{
    sb_envelope envelope;
    sb_envelope_scan(frame, &envelope);
    return send_to_pool(bus, sender, pool, session, &envelope, frame);
}

int sb_route(stdio_bus_t *bus, const sb_sender *sender, const sb_envelope *envelope, sb_span frame)
{
    sb_span session = sender->session, token;
    sb_pool *pool;
    char why[256];
    if (session.ptr == NULL) {
        token = sb_session_token(envelope, frame);
        if (token.ptr != NULL) session = sb_plain_text(bus, token);
    }
    pool = find_pool(bus, sender, envelope, frame, session, why);
    if (pool == NULL) {
        sb_error error = sb_error_of(SB_RPC_UNROUTABLE, "unroutable", why);
        bus->stats.routing_errors++;
        error.sent = 0;
        return sb_refuse_message(bus, sender, envelope, frame, &error, STDIO_BUS_ERR_ROUTING);
    }
    return send_to_pool(bus, sender, pool, session, envelope, frame);
}

bool sb_dispatch_send(stdio_bus_t *bus, sb_worker *worker, uint32_t link, sb_span frame, const sb_edits *edits)
{
    size_t len = edits != NULL ? sb_splice_length(edits, frame) : frame.len;
    char *room = sb_sink_reserve(&bus->ctx, &worker->sink, len);
    if (room == NULL) return false;
    if (edits != NULL) {
        sb_splice_copy(edits, frame, room);
    } else {
        memcpy(room, frame.ptr, len);
    }
    sb_sink_commit(&bus->ctx, &worker->sink, len);
    sb_worker_queued(worker, link, len + 1);
    return true;
}
