#include <stdio.h>

#include "dispatch.h"
#include "json.h"

sb_span sb_plain_text(stdio_bus_t *bus, sb_span token)
{
    static const sb_span absent = {NULL, 0};
    sb_span text = {token.ptr + 1, token.len - 2};
    if (memchr(text.ptr, '\\', text.len) == NULL) return text;
    bus->plain.pos = bus->plain.len = 0;
    if (sb_buf_reserve(&bus->plain, token.len)) {
        text.ptr = bus->plain.data;
        text.len = sb_json_decode(token, bus->plain.data);
        if (text.len != SIZE_MAX) return text;
    }
    return absent;
}

sb_span sb_session_token(const sb_envelope *envelope, sb_span frame)
{
    sb_span token = sb_member_value(frame, envelope->session);
    return token.ptr != NULL ? token : sb_protocol_session(sb_member_value(frame, envelope->params));
}

static sb_pool *pool_by_token(stdio_bus_t *bus, sb_span token)
{
    for (size_t i = 0; token.ptr != NULL && i < bus->pool_count; i++) {
        if (sb_json_string_is(token, bus->pools[i]->config.id)) return bus->pools[i];
    }
    return NULL;
}

/* The pool that a client's messages for this one go to; NULL if that doesn't exist yet. */
static sb_pool *used_pool(stdio_bus_t *bus, sb_pool *pool, sb_peer *client)
{
    return pool->config.exclusive ? sb_exclusive_find(bus, pool, client) : pool;
}

/* The only pool that knows this session. */
static sb_pool *pool_of_session(stdio_bus_t *bus, sb_peer *client, sb_span session)
{
    sb_pool *found = NULL;
    if (session.ptr == NULL) return NULL;
    for (size_t i = 0; i < bus->pool_count; i++) {
        sb_pool *pool = used_pool(bus, bus->pools[i], client);
        if (pool == NULL || sb_router_session(&bus->ctx.router, pool->key, session, false) == SB_NONE) continue;
        if (found != NULL) return NULL;
        found = pool;
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

/* The session that a worker has created and the params name, or SB_NONE. */
static uint32_t created_session(stdio_bus_t *bus, const sb_pool *pool, const sb_message *message)
{
    sb_span token = sb_protocol_session(sb_member_value(message->frame, message->envelope->params)), name;
    uint32_t session;
    if (token.ptr == NULL) return SB_NONE;
    name = sb_plain_text(bus, token);
    if (name.ptr == NULL) return SB_NONE;
    session = sb_router_session(&bus->ctx.router, pool->key, name, false);
    return session != SB_NONE && sb_router_session_at(&bus->ctx.router, session)->created ? session : SB_NONE;
}

/* The pool whose worker has created the session that is named, or NULL. */
static sb_pool *pool_of_created(stdio_bus_t *bus, const sb_message *message)
{
    for (size_t i = 0; i < bus->pool_count; i++) {
        sb_pool *pool = used_pool(bus, bus->pools[i], message->sender->peer);
        if (pool == NULL || pool->hello.protocol != SB_PROTOCOL_ACP) continue;
        if (created_session(bus, pool, message) != SB_NONE) return pool;
    }
    return NULL;
}

/* Plain text of the session that a message was given, or names; or absent. Valid like sb_plain_text's. */
static sb_span session_name(stdio_bus_t *bus, const sb_message *message)
{
    sb_span token;
    if (message->sender->session.ptr != NULL) return message->sender->session;
    token = sb_session_token(message->envelope, message->frame);
    return token.ptr != NULL ? sb_plain_text(bus, token) : token;
}

/* Why no pool can be told for a message, and which there are. An agentId need not name one where others know better. */
static void explain_no_pool(const stdio_bus_t *bus, sb_span agent, char why[256])
{
    size_t used, shown = sb_json_cut(agent, 128);
    if (agent.ptr != NULL) {
        used = (size_t)snprintf(why, 256, "agentId %.*s%s names no pool; there are:", (int)shown, agent.ptr,
                                shown < agent.len ? "..." : "");
    } else {
        used = (size_t)snprintf(why, 256, "No pool named; there are:");
    }
    for (size_t i = 0; i < bus->pool_count && used < 256; i++) {
        used += (size_t)snprintf(why + used, 256 - used, " %s", bus->pools[i]->config.id);
    }
}

/* The pool a message is for; NULL with a text that says why none can be told. */
static sb_pool *find_pool(stdio_bus_t *bus, const sb_message *message, char why[256])
{
    const sb_sender *sender = message->sender;
    sb_span agent = sb_member_value(message->frame, message->envelope->agent);
    sb_pool *pool;
    if (sender->pool.ptr != NULL || message->envelope->pool.end != 0) {
        return named_pool(bus, sender->pool, sb_member_value(message->frame, message->envelope->pool), why);
    }
    pool = pool_by_token(bus, agent);
    if (pool == NULL && bus->pool_count > 1) pool = pool_of_created(bus, message);
    if (pool == NULL && sender->conn != NULL && sender->conn->pool != NULL) return sender->conn->pool;
    if (pool == NULL && bus->pool_count == 1) return bus->pools[0];
    if (pool == NULL) pool = pool_of_session(bus, sender->peer, session_name(bus, message));
    if (pool == NULL) pool = bus->default_pool;
    if (pool == NULL) explain_no_pool(bus, agent, why);
    return pool;
}

/* ---- what it means ---------------------------------------------------------------------- */

/* Whether it might be a request of stateless MCP ("io.modelcontextprotocol/protocolVersion"): worth a closer look. */
static bool mentions_version(sb_span text)
{
    const char *p = text.ptr, *end;
    if (p == NULL) return false;
    end = p + text.len;
    while ((p = memchr(p, '/', (size_t)(end - p))) != NULL) {
        /* The slash may be escaped. */
        if (p > text.ptr && (p[-1] == 'l' || p[-1] == '\\') && p + 1 < end && p[1] == 'p') return true;
        p++;
    }
    return false;
}

/* Where a pool wasn't told what its workers speak, the first request that only one protocol has tells. */
static void find_protocol(sb_message *message)
{
    sb_span params = sb_member_value(message->frame, message->envelope->params);
    if (message->meaning == SB_MEANS_INITIALIZE) {
        message->pool->hello.protocol = sb_protocol_of_initialize(params);
    } else if (mentions_version(params) && sb_protocol_is_stateless(sb_protocol_meta(params))) {
        message->pool->hello.protocol = SB_PROTOCOL_MCP;
    }
}

static void find_meaning(sb_message *message)
{
    const sb_envelope *envelope = message->envelope;
    sb_handshake *hello = &message->pool->hello;
    sb_span method = sb_member_value(message->frame, envelope->method);
    bool asks = envelope->kind == SB_KIND_REQUEST;
    message->meaning = sb_protocol_client_means(hello->protocol, method);
    if (hello->protocol == SB_PROTOCOL_AUTO && asks) {
        find_protocol(message);
        if (hello->protocol != SB_PROTOCOL_AUTO) {
            message->meaning = sb_protocol_client_means(hello->protocol, method);
        } else if (message->meaning == SB_MEANS_INITIALIZE) {
            message->meaning = SB_MEANS_NOTHING;
        }
    }
    /* A notification is no question, and a request no announcement. */
    if (asks != (message->meaning <= SB_MEANS_LAST_REQUEST)) message->meaning = SB_MEANS_NOTHING;
    if (hello->protocol != SB_PROTOCOL_MCP || !asks) return;
    message->meta = sb_protocol_meta(sb_member_value(message->frame, envelope->params));
    if (hello->era != SB_ERA_STATELESS && sb_protocol_is_stateless(message->meta)) {
        message->meaning = SB_MEANS_STATELESS;
    }
}

/* ---- its session and worker ------------------------------------------------------------------ */

static sb_worker *session_worker(stdio_bus_t *bus, uint32_t session)
{
    sb_peer *peer = session != SB_NONE ? sb_router_session_at(&bus->ctx.router, session)->worker : NULL;
    return peer != NULL ? SB_CONTAINER(peer, sb_worker, peer) : NULL;
}

/* Which of two workers should get one more session: of those it made (`made`), or of clients that stay with it. */
static bool is_emptier(const sb_peer *a, const sb_peer *b, bool made)
{
    uint32_t of_a = made ? a->created + a->opening : a->session_count - a->created;
    uint32_t of_b = made ? b->created + b->opening : b->session_count - b->created;
    return of_a != of_b ? of_a < of_b : sb_peer_load(a) < sb_peer_load(b);
}

/* The ready worker with the fewest sessions. NULL: none is ready. */
static sb_worker *emptiest_worker(const sb_pool *pool, bool made)
{
    sb_worker *best = NULL;
    for (sb_worker *worker = pool->workers; worker != NULL; worker = worker->next_of_pool) {
        if (worker->peer.node.balance == NULL) continue;
        if (best == NULL || is_emptier(&worker->peer, &best->peer, made)) best = worker;
    }
    return best;
}

/* Whether a worker that takes nothing more and has not ended yet is still to answer something of the session. */
static bool owes_answers(const stdio_bus_t *bus, const sb_worker *worker, uint32_t session)
{
    bool leaves = worker->ladder != SB_LADDER_NONE && !worker->retiring;
    return leaves && sb_router_session_at(&bus->ctx.router, session)->requests != SB_NONE;
}

/* The worker for a message: the session's, if it has one that takes messages, else the pool's choice. NULL: none. */
static sb_worker *find_worker(stdio_bus_t *bus, sb_pool *pool, uint32_t session, sb_meaning meaning)
{
    sb_worker *worker = session_worker(bus, session);
    sb_balance_node *node;
    if (worker != NULL && sb_worker_takes(worker)) return worker;
    /* Nobody else knows it. */
    if (worker != NULL && sb_router_session_at(&bus->ctx.router, session)->created) return NULL;
    /* What comes of before comes before what is said now. */
    if (worker != NULL && owes_answers(bus, worker, session)) return NULL;
    if (meaning == SB_MEANS_NEW_SESSION || meaning == SB_MEANS_LOAD_SESSION) {
        worker = emptiest_worker(pool, true);
    } else if (session != SB_NONE && sb_router_session_at(&bus->ctx.router, session)->own) {
        worker = emptiest_worker(pool, false);
    } else {
        node = sb_balance_pick(&pool->balance);
        worker = node != NULL ? SB_CONTAINER(SB_CONTAINER(node, sb_peer, node), sb_worker, peer) : NULL;
    }
    if (worker != NULL && session != SB_NONE) sb_session_bind(&bus->ctx.router, session, &worker->peer);
    return worker;
}

/* The session of a message in its pool, SB_NONE without one. False if there is no room for it. */
static bool find_session(stdio_bus_t *bus, const sb_message *message, uint32_t *session)
{
    sb_router *router = &bus->ctx.router;
    sb_pool *pool = message->pool;
    sb_span name;
    *session = SB_NONE;
    sb_bus_tell_time(bus);
    if (pool->hello.protocol == SB_PROTOCOL_ACP) {
        if (message->meaning == SB_MEANS_NEW_SESSION) return true;
        *session = created_session(bus, pool, message);
        if (*session != SB_NONE) return true;
    }
    if (message->meaning == SB_MEANS_LOAD_SESSION) {
        /* It becomes one of the worker's, under the name in the params, whatever else is named. */
        sb_span token = sb_protocol_session(sb_member_value(message->frame, message->envelope->params));
        name = token.ptr != NULL ? sb_plain_text(bus, token) : token;
    } else {
        name = session_name(bus, message);
    }
    if (name.ptr != NULL) {
        *session = sb_router_session(router, pool->key, name, true);
    } else if (sb_is_stateful(pool)) {
        *session = sb_router_own_session(router, pool->key, message->sender->peer);
    } else {
        return true;
    }
    return *session != SB_NONE;
}

/* ---- client to worker --------------------------------------------------------------------- */

static sb_error overloaded(stdio_bus_t *bus, const sb_pool *pool, const char *text)
{
    sb_error error = sb_error_of(SB_RPC_OVERLOADED, "overloaded", text);
    bus->more.overload_refusals++;
    error.pool = pool->config.id;
    error.sent = 0;
    return error;
}

static int refuse_overloaded(stdio_bus_t *bus, const sb_message *message, const char *text, int status)
{
    sb_error error = overloaded(bus, message->pool, text);
    return sb_refuse_message(bus, message, &error, status);
}

/* What the worker must not see, or sees elsewhere. False if it is too much. */
static bool take_off(const sb_message *message, sb_edits *edits)
{
    bool all = sb_speaks_only(message->pool);
    if (!sb_issues_ids(message->pool)) return true;
    if (all && message->envelope->ext.end != 0) sb_splice_move_ext(edits, message->frame, message->envelope);
    return sb_splice_drop_routing(edits, message->frame, message->envelope, all) && edits->count + 3 <= SB_EDITS_MAX;
}

/* Tokens of the client's in `_meta` give way to what they are between bus and worker. False without memory. */
static bool map_meta(stdio_bus_t *bus, const sb_message *message, uint32_t request, sb_span wire, sb_edits *edits,
                     char scratch[SB_WIRE_MAX])
{
    sb_router *router = &bus->ctx.router;
    sb_span token = sb_protocol_asked_token(message->meta);
    if (token.ptr != NULL) {
        if (!sb_router_note(router, request, token)) return false;
        sb_splice_replace_at(edits, message->frame, token, wire);
    }
    token = sb_protocol_subscription(message->meta);
    if (token.ptr != NULL) {
        uint32_t named = sb_router_asked(router, message->sender->peer, token);
        if (named != SB_NONE) {
            sb_splice_replace_at(edits, message->frame, token, sb_router_wire(router, named, scratch));
        }
    }
    return true;
}

static int to_worker(stdio_bus_t *bus, const sb_message *message, sb_worker *worker, uint32_t link, uint32_t session)
{
    sb_router *router = &bus->ctx.router;
    const sb_envelope *envelope = message->envelope;
    sb_edits edits;
    char wire[SB_WIRE_MAX], scratch[SB_WIRE_MAX];
    uint32_t request = SB_NONE;
    bool ok = true;
    edits.count = 0;
    if (!take_off(message, &edits)) {
        sb_error error = sb_error_of(SB_RPC_INVALID_REQUEST, "invalid_request", "Too many repeated routing members");
        return sb_refuse_message(bus, message, &error, STDIO_BUS_ERR_INVALID);
    }
    if (envelope->kind == SB_KIND_REQUEST) {
        sb_span id = sb_member_value(message->frame, envelope->id);
        sb_span token = sb_router_ask(router, link, SB_DOWN, id, sb_issues_ids(message->pool), session, wire, &request);
        if (token.ptr == NULL) return refuse_overloaded(bus, message, "Out of memory", STDIO_BUS_EFULL);
        sb_router_request(router, request)->at = worker->sink.queued;
        sb_router_request(router, request)->asked_at = sb_asked_at(bus, message->sender);
        sb_router_mean(router, request, message->meaning);
        sb_pool_counted(message->pool)->requests++;
        if (sb_router_request(router, request)->issued != 0) sb_splice_replace(&edits, envelope->id, token);
        ok = message->meta.ptr == NULL || map_meta(bus, message, request, token, &edits, scratch);
    }
    if (ok && sb_dispatch_send(bus, worker, link, message->frame, edits.count > 0 ? &edits : NULL)) return STDIO_BUS_OK;
    if (request != SB_NONE) sb_router_end(router, request);
    return refuse_overloaded(bus, message, "Out of memory", STDIO_BUS_EFULL);
}

int sb_route_later(stdio_bus_t *bus, const sb_message *message, uint32_t session, uint32_t *request)
{
    sb_pool *pool = message->pool;
    sb_error error = sb_error_of(SB_RPC_WORKER_EXITED, "worker_exited", "The pool has no running worker");
    int status = STDIO_BUS_ERR_WORKER;
    char tail[SB_ANSWER_STDERR_MAX];
    if (pool->balance.count > 0 || sb_pool_recovers(pool)) {
        status = sb_pool_queue(bus, message, session, request);
        if (status == STDIO_BUS_OK) return STDIO_BUS_OK;
        return refuse_overloaded(bus, message, "The pool's queue is full", status);
    }
    error.pool = pool->config.id;
    error.sent = 0;
    sb_pool_explain(pool, &error, tail);
    return sb_refuse_message(bus, message, &error, status);
}

const char *sb_no_room(const stdio_bus_t *bus, const sb_worker *worker, uint32_t link, const sb_envelope *envelope,
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

/* A session belongs to whoever uses it first, and to the next one when that has left; a turn brings it along. */
static void take_session(sb_router *router, const sb_message *message, uint32_t session)
{
    bool taken = message->meaning == SB_MEANS_LOAD_SESSION || message->meaning == SB_MEANS_PROMPT;
    if (session == SB_NONE || sb_router_session_at(router, session)->own) return;
    if (taken || sb_router_session_at(router, session)->owner == NULL) {
        sb_session_give(router, session, message->sender->peer);
    }
}

static int send_in_session(stdio_bus_t *bus, const sb_message *message, uint32_t session)
{
    sb_router *router = &bus->ctx.router;
    sb_worker *worker;
    uint32_t link, request;
    const char *reason;
    bool speaks = message->meaning == SB_MEANS_PROMPT || message->meaning == SB_MEANS_LOAD_SESSION;
    /* The turn before it has been cancelled, but has not ended yet: what is said in the session is still that turn's. */
    if (speaks && session != SB_NONE && sb_router_session_at(router, session)->ending != SB_NONE) {
        return sb_route_later(bus, message, session, &request);
    }
    worker = find_worker(bus, message->pool, session, message->meaning);
    if (worker == NULL) return sb_route_later(bus, message, session, &request);
    link = sb_router_link(router, message->sender->peer, &worker->peer);
    reason = link == SB_NONE ? "Out of memory" : sb_no_room(bus, worker, link, message->envelope, message->frame.len);
    if (reason == NULL) {
        take_session(router, message, session);
        return to_worker(bus, message, worker, link, session);
    }
    worker->refused = true;
    return refuse_overloaded(bus, message, reason, STDIO_BUS_EFULL);
}

/* A cancelled turn that has not begun ends as it would have, had it begun [ACP Prompt Turn: Cancellation]. */
static void end_queued_turns(stdio_bus_t *bus, const sb_message *message)
{
    sb_span token = sb_protocol_session(sb_member_value(message->frame, message->envelope->params)), name = {NULL, 0};
    if (message->pool->head != NULL && token.ptr != NULL) name = sb_plain_text(bus, token);
    if (name.ptr != NULL) sb_pool_end_turns(bus, message->pool, name);
}

/* Whether the session is the one that the worker knows by this name, so that a prompt is a turn of it. */
static bool is_named(stdio_bus_t *bus, const sb_message *message, uint32_t session)
{
    sb_span token = sb_protocol_session(sb_member_value(message->frame, message->envelope->params)), name;
    if (session == SB_NONE || sb_router_session_at(&bus->ctx.router, session)->own || token.ptr == NULL) return false;
    name = sb_plain_text(bus, token);
    return name.ptr != NULL && sb_span_eq(name, sb_text_span(&sb_router_session_at(&bus->ctx.router, session)->name));
}

/* Whether a turn is a client's to cancel: its own, or with none begun, one of a session that is its own or nobody's. */
static bool may_cancel_turn(stdio_bus_t *bus, const sb_message *message)
{
    const sb_router *router = &bus->ctx.router;
    const sb_peer *client = message->sender->peer;
    uint32_t entry = created_session(bus, message->pool, message);
    const sb_session *session;
    if (entry == SB_NONE) return true;
    session = sb_router_session_at(router, entry);
    if (session->turn != SB_NONE) return sb_router_asker(router, sb_router_request(router, session->turn)) == client;
    return session->owner == NULL || session->owner == client;
}

static int send_to_pool(stdio_bus_t *bus, sb_message *message)
{
    uint32_t session;
    if (message->pool->config.exclusive && message->pool->model == NULL) {
        sb_pool *own = sb_exclusive_take(bus, message->pool, message->sender->peer);
        if (own == NULL) return refuse_overloaded(bus, message, "Every worker of the pool is taken", STDIO_BUS_EFULL);
        message->pool = own;
    }
    find_meaning(message);
    if (message->sender->conn != NULL && sb_issues_ids(message->pool)) message->sender->conn->leaves_at_eof = true;
    switch (message->meaning) {
    case SB_MEANS_INITIALIZE: return sb_handshake_from_client(bus, message);
    case SB_MEANS_INITIALIZED: return STDIO_BUS_OK; /* the bus has said so itself */
    case SB_MEANS_STATELESS:
        if (message->pool->hello.era != SB_ERA_HANDSHAKE) break;
        return sb_handshake_refuse(bus, message, "wrong_era",
                                   "The pool's workers speak MCP with a handshake; send initialize");
    case SB_MEANS_CANCEL: /* of something that isn't pending */
        bus->more.stale_cancels++;
        return STDIO_BUS_OK;
    case SB_MEANS_PROGRESS:
        sb_drop_message(bus, "progress of nothing that was asked");
        return STDIO_BUS_OK;
    default: break;
    }
    if (message->meaning == SB_MEANS_CANCEL_TURN) {
        if (!may_cancel_turn(bus, message)) {
            bus->more.stale_cancels++;
            return STDIO_BUS_OK;
        }
        /* First: who can't take the answer is closed, and with a client may go more than a session. */
        end_queued_turns(bus, message);
    }
    if (!find_session(bus, message, &session)) {
        return refuse_overloaded(bus, message, "Too many sessions", STDIO_BUS_EFULL);
    }
    if (message->meaning == SB_MEANS_PROMPT && message->pool->hello.protocol == SB_PROTOCOL_ACP &&
        !is_named(bus, message, session)) {
        message->meaning = SB_MEANS_NOTHING;
    }
    return send_in_session(bus, message, session);
}

int sb_dispatch_to_pool(stdio_bus_t *bus, const sb_sender *sender, sb_pool *pool, sb_span frame)
{
    sb_envelope envelope;
    sb_message message = {sender, &envelope, frame, pool, SB_MEANS_NOTHING, {NULL, 0}};
    sb_envelope_scan(frame, &envelope);
    return send_to_pool(bus, &message);
}

int sb_route(stdio_bus_t *bus, const sb_sender *sender, const sb_envelope *envelope, sb_span frame)
{
    sb_message message = {sender, envelope, frame, NULL, SB_MEANS_NOTHING, {NULL, 0}};
    char why[256];
    message.pool = find_pool(bus, &message, why);
    if (message.pool == NULL) {
        sb_error error = sb_error_of(SB_RPC_UNROUTABLE, "unroutable", why);
        bus->stats.routing_errors++;
        error.sent = 0;
        return sb_refuse_message(bus, &message, &error, STDIO_BUS_ERR_ROUTING);
    }
    return send_to_pool(bus, &message);
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

bool sb_dispatch_put(stdio_bus_t *bus, sb_worker *worker, const sb_buf *text)
{
    sb_span frame = {text->data, text->len};
    return worker->in.fd >= 0 && sb_dispatch_send(bus, worker, SB_NONE, frame, NULL);
}
