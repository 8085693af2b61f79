#include <stdio.h>

#include "bus.h"
#include "scan.h"

/* ---- refusing ------------------------------------------------------------------------ */

/* Refuses a client's message: an answer, or for the host without answers just the status. */
static int refuse(stdio_bus_t *bus, const sb_sender *sender, sb_span id, const sb_error *error, int status)
{
    if (sender->conn == NULL && !sender->answer_errors) return status;
    sb_deliver_error(bus, sender->peer, id, error, -1, 0);
    return STDIO_BUS_OK;
}

/* A notification gets no answer; it is counted instead. */
static int refuse_message(stdio_bus_t *bus, const sb_sender *sender, const sb_envelope *envelope, sb_span frame,
                          const sb_error *error, int status)
{
    if (envelope->kind == SB_KIND_REQUEST) {
        return refuse(bus, sender, sb_member_value(frame, envelope->id), error, status);
    }
    bus->more.dropped_frames++;
    sb_report_lost(bus, STDIO_BUS_EVENT_DROPPED, NULL, error->reason);
    return status;
}

static int refuse_broken(stdio_bus_t *bus, const sb_sender *sender, sb_envelope_result result)
{
    static const sb_span no_id = {NULL, 0};
    sb_error error = sb_error_of(SB_RPC_PARSE_ERROR, "parse_error", "Parse error");
    if (result == SB_ENVELOPE_ARRAY) {
        error = sb_error_of(SB_RPC_INVALID_REQUEST, "batch", "Batch requests are not supported");
    }
    bus->more.parse_errors++;
    /* The host's own mistake is its return value, whatever it asked for: there is no id to answer. */
    if (sender->conn == NULL) return STDIO_BUS_ERR_INVALID;
    refuse(bus, sender, no_id, &error, STDIO_BUS_ERR_INVALID);
    /* So that what a browser posts across origins to a loopback port never gets to its body. */
    if (sender->conn->tcp && !sender->conn->greeted) sb_conn_finish(sender->conn);
    return STDIO_BUS_ERR_INVALID;
}

void sb_dispatch_client_oversize(stdio_bus_t *bus, const sb_sender *sender, sb_span beginning)
{
    sb_conn *conn = sender->conn;
    sb_error error = sb_error_of(SB_RPC_INVALID_REQUEST, "too_large", "Message too large");
    bus->more.oversize_frames++;
    if (conn->listener != NULL) {
        sb_dispatch_turn_away(bus, conn, sb_envelope_partial_id(beginning));
        return;
    }
    /* Where the next frame begins can't be known. */
    if (conn->source.framer.by_length) error.message = "Frame too large";
    refuse(bus, sender, sb_envelope_partial_id(beginning), &error, STDIO_BUS_ERR_BUFFER);
    if (conn->source.framer.by_length) sb_conn_finish(conn);
}

/* ---- pool and session ------------------------------------------------------------------- */

/* Plain text of a string token. Absent without memory or with a broken escape. */
static sb_span decode(stdio_bus_t *bus, sb_span token)
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

static bool is_text(sb_span token)
{
    return token.len > 2 && token.ptr[0] == '"';
}

/* The session's token: the root member, else the one in params. */
static sb_span session_token(const sb_envelope *envelope, sb_span frame)
{
    sb_span token = sb_member_value(frame, envelope->session);
    if (token.ptr == NULL && envelope->params.end != 0) {
        sb_span params = sb_member_value(frame, envelope->params);
        if (params.ptr[0] == '{') token = sb_json_find(params, "sessionId");
        if (!is_text(token)) token.ptr = NULL;
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

static bool issues_ids(const sb_pool *pool)
{
    return pool->config.protocol == SB_PROTOCOL_MCP || pool->config.protocol == SB_PROTOCOL_ACP;
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

static int to_worker(stdio_bus_t *bus, const sb_sender *sender, sb_pool *pool, sb_worker *worker, uint32_t link,
                     uint32_t session, const sb_envelope *envelope, sb_span frame)
{
    sb_router *router = &bus->ctx.router;
    sb_edits edits;
    char wire[SB_WIRE_MAX];
    uint32_t request = SB_NONE;
    sb_error error = sb_error_of(SB_RPC_OVERLOADED, "overloaded", "Out of memory");
    edits.count = 0;
    if (issues_ids(pool) && !sb_splice_drop_routing(&edits, frame, envelope, true)) {
        error = sb_error_of(SB_RPC_INVALID_REQUEST, "invalid_request", "Too many repeated routing members");
        return refuse_message(bus, sender, envelope, frame, &error, STDIO_BUS_ERR_INVALID);
    }
    if (envelope->kind == SB_KIND_REQUEST) {
        sb_span id = sb_member_value(frame, envelope->id);
        sb_span token = sb_router_ask(router, link, SB_DOWN, id, issues_ids(pool), session, wire, &request);
        if (token.ptr == NULL) return refuse_message(bus, sender, envelope, frame, &error, STDIO_BUS_EFULL);
        sb_router_request(router, request)->at = worker->sink.queued;
        pool->requests++;
        if (sb_router_request(router, request)->issued != 0) sb_splice_replace(&edits, envelope->id, token);
    }
    if (sb_dispatch_send(bus, worker, link, frame, edits.count > 0 ? &edits : NULL)) return STDIO_BUS_OK;
    if (request != SB_NONE) sb_router_end(router, request);
    return refuse_message(bus, sender, envelope, frame, &error, STDIO_BUS_EFULL);
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
        return refuse_message(bus, sender, envelope, frame, &error, status);
    }
    error.pool = pool->config.id;
    error.sent = 0;
    return refuse_message(bus, sender, envelope, frame, &error, status);
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

/* The session belongs to whoever uses it, if the client it belonged to is gone. */
static void claim_session(stdio_bus_t *bus, uint32_t session, const sb_worker *worker, const sb_peer *client)
{
    sb_session *claimed = sb_router_session_at(&bus->ctx.router, session);
    if (sb_router_linked_client(&bus->ctx.router, claimed->owner, &worker->peer) == NULL) claimed->owner = client->key;
}

static int route(stdio_bus_t *bus, const sb_sender *sender, sb_pool *pool, sb_span session_name,
                 const sb_envelope *envelope, sb_span frame)
{
    sb_router *router = &bus->ctx.router;
    uint32_t session = SB_NONE, link;
    const char *reason = "Too many sessions";
    sb_worker *worker;
    sb_error error;
    if (session_name.ptr != NULL) {
        router->now = (uint32_t)(bus->ctx.loop.now / 1000u);
        session = sb_router_session(router, pool->key, session_name, true);
        sb_bus_watch_idle(bus);
    }
    if (session_name.ptr == NULL || session != SB_NONE) {
        worker = find_worker(bus, pool, session);
        if (worker == NULL) return no_worker(bus, sender, pool, session_name, envelope, frame);
        link = sb_router_link(router, sender->peer, &worker->peer);
        reason = link == SB_NONE ? "Out of memory" : no_room(bus, worker, link, envelope, frame.len);
        if (reason == NULL) {
            if (session != SB_NONE) claim_session(bus, session, worker, sender->peer);
            return to_worker(bus, sender, pool, worker, link, session, envelope, frame);
        }
        worker->refused = true;
    }
    error = overloaded(bus, pool, reason);
    return refuse_message(bus, sender, envelope, frame, &error, STDIO_BUS_EFULL);
}

int sb_dispatch_to_pool(stdio_bus_t *bus, const sb_sender *sender, sb_pool *pool, sb_span session, sb_span frame)
{
    sb_envelope envelope;
    sb_envelope_scan(frame, &envelope);
    return route(bus, sender, pool, session, &envelope, frame);
}

/* A client's answer to what a worker asked it. */
static int answer_worker(stdio_bus_t *bus, const sb_sender *sender, const sb_envelope *envelope, sb_span frame)
{
    sb_router *router = &bus->ctx.router;
    sb_span id = sb_member_value(frame, envelope->id), original;
    uint32_t entry = id.ptr != NULL ? sb_router_answered(router, sender->peer, id) : SB_NONE;
    sb_edits edits;
    sb_worker *worker;
    sb_text text;
    bool sent, reissued;
    if (entry == SB_NONE || sb_router_request(router, entry)->given_up) {
        /* Late, or never asked: it must not reach a worker that asked something else. */
        if (entry != SB_NONE) sb_router_end(router, entry);
        bus->more.late_answers++;
        return STDIO_BUS_OK;
    }
    worker = SB_CONTAINER(sb_router_asker(router, sb_router_request(router, entry)), sb_worker, peer);
    reissued = sb_router_request(router, entry)->issued != 0;
    sb_router_end_take(router, entry, &text);
    original = sb_text_span(&text);
    edits.count = 0;
    if (issues_ids(worker->pool)) sb_splice_drop_routing(&edits, frame, envelope, true);
    if (reissued) sb_splice_replace(&edits, envelope->id, original);
    sent = worker->in.fd >= 0 && sb_dispatch_send(bus, worker, SB_NONE, frame, &edits);
    sb_text_free(&text);
    if (sent) return STDIO_BUS_OK;
    bus->more.dropped_frames++;
    return STDIO_BUS_EFULL;
}

/* Whether the state allows a message. Answers that workers wait for always pass. */
static bool is_admitted(const stdio_bus_t *bus, const sb_envelope *envelope)
{
    if (envelope->kind == SB_KIND_RESPONSE) return true;
    return bus->state == STDIO_BUS_STATE_RUNNING && !(bus->draining && envelope->kind == SB_KIND_REQUEST);
}

static bool is_auth(sb_span method)
{
    return method.len == sizeof "\"stdio_bus/auth\"" - 1 && sb_json_string_is(method, "stdio_bus/auth");
}

/* stdio_bus/auth is the bus's own, and never forwarded: where no token is asked for, any will do. */
static bool answer_auth(stdio_bus_t *bus, const sb_sender *sender, const sb_envelope *envelope, sb_span frame)
{
    sb_delivery delivery = {0};
    sb_buf text = {0};
    if (!is_auth(sb_member_value(frame, envelope->method))) return false;
    if (sender->conn == NULL || envelope->kind != SB_KIND_REQUEST) return true;
    if (sb_answer_result(&text, sb_member_value(frame, envelope->id), "{\"ok\":true}")) {
        delivery.frame.ptr = text.data;
        delivery.frame.len = text.len;
        sb_deliver(bus, sender->peer, &delivery);
    }
    sb_buf_free(&text);
    return true;
}

static int dispatch_message(stdio_bus_t *bus, const sb_sender *sender, const sb_envelope *envelope, sb_span frame)
{
    sb_span session = sender->session, token;
    sb_pool *pool;
    char why[256];
    if (answer_auth(bus, sender, envelope, frame)) return STDIO_BUS_OK;
    if (session.ptr == NULL) {
        token = session_token(envelope, frame);
        if (token.ptr != NULL) session = decode(bus, token);
    }
    pool = find_pool(bus, sender, envelope, frame, session, why);
    if (pool == NULL) {
        sb_error error = sb_error_of(SB_RPC_UNROUTABLE, "unroutable", why);
        bus->stats.routing_errors++;
        error.sent = 0;
        return refuse_message(bus, sender, envelope, frame, &error, STDIO_BUS_ERR_ROUTING);
    }
    return route(bus, sender, pool, session, envelope, frame);
}

/* Whether a message shows the token that the client's listener asks for. */
static bool shows_token(stdio_bus_t *bus, const sb_conn *conn, const sb_envelope *envelope, sb_span frame)
{
    sb_span params = sb_member_value(frame, envelope->params), token = {NULL, 0};
    if (envelope->kind != SB_KIND_REQUEST || !is_auth(sb_member_value(frame, envelope->method))) return false;
    if (params.ptr != NULL && params.ptr[0] == '{') token = sb_json_find(params, "token");
    if (!is_text(token)) return false;
    token = decode(bus, token);
    return token.ptr != NULL && sb_listener_knows(conn->listener, token);
}

void sb_dispatch_turn_away(stdio_bus_t *bus, sb_conn *conn, sb_span id)
{
    sb_error error = sb_error_of(SB_RPC_UNAUTHORIZED, "unauthorized", "A valid token is required first");
    bus->more.unauthorized++;
    sb_deliver_error(bus, &conn->peer, id, &error, -1, 0);
    sb_conn_finish(conn);
}

/* The first message of a client that has to show a token. */
static int greet(stdio_bus_t *bus, const sb_sender *sender, sb_span frame)
{
    sb_envelope envelope;
    sb_span id = {NULL, 0};
    if (sb_envelope_scan(frame, &envelope) == SB_ENVELOPE_OK) {
        id = sb_member_value(frame, envelope.id);
        if (shows_token(bus, sender->conn, &envelope, frame)) {
            sender->conn->greeted = true;
            sb_clients_admit(bus, sender->conn);
            answer_auth(bus, sender, &envelope, frame);
            return STDIO_BUS_OK;
        }
    }
    sb_dispatch_turn_away(bus, sender->conn, id);
    return STDIO_BUS_ERR_INVALID;
}

int sb_dispatch_from_client(stdio_bus_t *bus, const sb_sender *sender, sb_span frame)
{
    sb_envelope envelope;
    sb_error error;
    int status;
    sb_envelope_result result;
    if (sender->conn != NULL && sender->conn->listener != NULL) return greet(bus, sender, frame);
    result = sb_envelope_scan(frame, &envelope);
    if (result != SB_ENVELOPE_OK) return refuse_broken(bus, sender, result);
    if (sender->conn != NULL) sender->conn->greeted = true;
    if (envelope.kind == SB_KIND_INVALID) {
        error = sb_error_of(SB_RPC_INVALID_REQUEST, "invalid_request", "Invalid Request");
        bus->more.parse_errors++;
        return refuse(bus, sender, sb_member_value(frame, envelope.id), &error, STDIO_BUS_ERR_INVALID);
    }
    if (!is_admitted(bus, &envelope)) {
        error = sb_error_of(SB_RPC_SHUTTING_DOWN, "shutting_down", "The bus is shutting down");
        error.sent = 0;
        return refuse_message(bus, sender, &envelope, frame, &error, STDIO_BUS_ERR_STATE);
    }
    if (envelope.kind == SB_KIND_RESPONSE) {
        status = answer_worker(bus, sender, &envelope, frame);
    } else {
        status = dispatch_message(bus, sender, &envelope, frame);
    }
    if (status == STDIO_BUS_OK) {
        bus->stats.messages_in++;
        bus->stats.bytes_in += frame.len;
    }
    return status;
}

/* ---- worker to client ----------------------------------------------------------------------- */

static sb_delivery delivery_of(const sb_worker *worker, const sb_envelope *envelope, sb_span frame)
{
    sb_delivery delivery = {0};
    delivery.kind = (uint32_t)(envelope->kind == SB_KIND_REQUEST    ? STDIO_BUS_FRAME_REQUEST
                               : envelope->kind == SB_KIND_RESPONSE ? STDIO_BUS_FRAME_RESPONSE
                                                                    : STDIO_BUS_FRAME_NOTIFICATION);
    delivery.worker = worker->id;
    delivery.generation = worker->generation;
    delivery.frame = frame;
    delivery.id = envelope->id;
    delivery.session = envelope->session;
    return delivery;
}

static void deliver_response(stdio_bus_t *bus, sb_worker *worker, const sb_envelope *envelope, sb_span frame)
{
    sb_router *router = &bus->ctx.router;
    sb_span id = sb_member_value(frame, envelope->id);
    uint32_t entry = id.ptr != NULL ? sb_router_answered(router, &worker->peer, id) : SB_NONE;
    sb_delivery delivery = delivery_of(worker, envelope, frame);
    sb_edits edits;
    sb_request *request;
    sb_peer *client;
    sb_text original;
    if (entry == SB_NONE) {
        bus->more.unattributed_frames++;
        sb_report_lost(bus, STDIO_BUS_EVENT_UNATTRIBUTED, worker, "an answer to no request");
        return;
    }
    request = sb_router_request(router, entry);
    if (request->given_up) {
        sb_router_end(router, entry);
        bus->more.late_answers++;
        return;
    }
    client = sb_router_asker(router, request);
    edits.count = 0;
    if (request->issued != 0) delivery.edits = &edits;
    sb_router_end_take(router, entry, &original);
    if (delivery.edits != NULL) {
        delivery.new_id = sb_text_span(&original);
        sb_splice_replace(&edits, envelope->id, delivery.new_id);
    }
    sb_deliver(bus, client, &delivery);
    sb_text_free(&original);
}

/* The client a worker's own message is for; NULL: nobody's. */
static sb_peer *find_client(stdio_bus_t *bus, sb_worker *worker, const sb_envelope *envelope, sb_span frame)
{
    sb_router *router = &bus->ctx.router;
    sb_span token = session_token(envelope, frame), name = {NULL, 0};
    sb_peer *client = NULL;
    uint32_t session;
    if (token.ptr != NULL) name = decode(bus, token);
    if (name.ptr != NULL) {
        session = sb_router_session(router, worker->pool->key, name, false);
        if (session != SB_NONE) {
            client = sb_session_waiter(router, session);
            if (client == NULL) {
                client = sb_router_linked_client(router, sb_router_session_at(router, session)->owner, &worker->peer);
            }
        }
    }
    if (client == NULL) client = sb_router_only_client(router, &worker->peer);
    /* With no client at all, what a worker says belongs to the host it lives with. */
    if (client == NULL && worker->peer.links == SB_NONE && !bus->no_host) client = &bus->host;
    return client;
}

static bool is_permission(sb_span method)
{
    return sb_json_string_is(method, "session/request_permission");
}

static void deliver_request(stdio_bus_t *bus, sb_worker *worker, const sb_envelope *envelope, sb_span frame)
{
    sb_router *router = &bus->ctx.router;
    sb_span id = sb_member_value(frame, envelope->id), token = {NULL, 0};
    bool permission = is_permission(sb_member_value(frame, envelope->method));
    sb_peer *client = find_client(bus, worker, envelope, frame);
    sb_conn *conn = client != NULL ? sb_conn_of(bus, client) : NULL;
    sb_delivery delivery = delivery_of(worker, envelope, frame);
    char wire[SB_WIRE_MAX];
    uint32_t entry, link = SB_NONE;
    sb_edits edits;
    if (client != NULL && (conn == NULL || !conn->eof)) link = sb_router_link(router, client, &worker->peer);
    if (link != SB_NONE) {
        token = sb_router_ask(router, link, SB_UP, id, issues_ids(worker->pool), SB_NONE, wire, &entry);
    }
    if (token.ptr == NULL) {
        bus->more.unattributed_frames++;
        sb_report_lost(bus, STDIO_BUS_EVENT_UNATTRIBUTED, worker, "a request that no client can answer");
        sb_dispatch_decline(bus, worker, id, permission);
        return;
    }
    sb_router_request(router, entry)->permission = permission;
    if (sb_router_request(router, entry)->issued != 0) {
        edits.count = 0;
        sb_splice_replace(&edits, envelope->id, token);
        delivery.edits = &edits;
        delivery.new_id = token;
    }
    /* If it can't be delivered, its client is closed, and that declines it. */
    sb_deliver(bus, client, &delivery);
}

static void garbage(stdio_bus_t *bus, sb_worker *worker, sb_span line)
{
    if (line.len > 256) line.len = 256;
    bus->more.worker_garbage++;
    sb_report_worker(bus, STDIO_BUS_EVENT_WORKER_GARBAGE, worker, line, 0);
}

void sb_dispatch_from_worker(stdio_bus_t *bus, sb_worker *worker, sb_span frame)
{
    sb_envelope envelope;
    sb_delivery delivery;
    sb_peer *client;
    if (sb_envelope_scan(frame, &envelope) != SB_ENVELOPE_OK || envelope.kind == SB_KIND_INVALID) {
        garbage(bus, worker, frame);
        return;
    }
    switch (envelope.kind) {
    case SB_KIND_INVALID: break;
    case SB_KIND_RESPONSE: deliver_response(bus, worker, &envelope, frame); break;
    case SB_KIND_REQUEST: deliver_request(bus, worker, &envelope, frame); break;
    case SB_KIND_NOTIFICATION:
        client = find_client(bus, worker, &envelope, frame);
        if (client != NULL) {
            delivery = delivery_of(worker, &envelope, frame);
            sb_deliver(bus, client, &delivery);
        } else {
            bus->more.unattributed_frames++;
            sb_report_lost(bus, STDIO_BUS_EVENT_UNATTRIBUTED, worker, "a notification");
        }
        break;
    }
}

void sb_dispatch_worker_oversize(stdio_bus_t *bus, sb_worker *worker, sb_span beginning)
{
    sb_router *router = &bus->ctx.router;
    sb_span id = sb_envelope_partial_id(beginning);
    uint32_t entry = id.ptr != NULL ? sb_router_answered(router, &worker->peer, id) : SB_NONE;
    sb_error error = sb_error_of(SB_RPC_INVALID_REQUEST, "too_large", "The worker's answer is too large");
    sb_peer *client;
    sb_text original;
    bus->more.oversize_frames++;
    sb_log(&bus->ctx, SB_LOG_WARN, "worker %d (%s): a line above max_input_buffer was skipped", worker->id,
           worker->config->id);
    if (entry == SB_NONE) return;
    if (sb_router_request(router, entry)->given_up) {
        sb_router_end(router, entry);
        return;
    }
    client = sb_router_asker(router, sb_router_request(router, entry));
    sb_router_end_take(router, entry, &original);
    error.pool = worker->config->id;
    error.worker = worker->id;
    error.sent = 1;
    sb_deliver_error(bus, client, sb_text_span(&original), &error, worker->id, worker->generation);
    sb_text_free(&original);
}
