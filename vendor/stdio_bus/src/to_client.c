#include "dispatch.h"

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
    delivery.request = SB_NONE;
    return delivery;
}

void sb_dispatch_answer(stdio_bus_t *bus, sb_peer *client, const sb_worker *worker, const sb_envelope *envelope,
                        sb_span frame, sb_span original)
{
    sb_delivery delivery = delivery_of(worker, envelope, frame);
    sb_edits edits;
    edits.count = 0;
    sb_splice_replace(&edits, envelope->id, original);
    delivery.edits = &edits;
    delivery.new_id = original;
    sb_deliver(bus, client, &delivery);
}

/* ---- what answers teach ------------------------------------------------------------------ */

/* The answer to session/new, or to its like, names a session of that worker's: from now on it is known. */
static bool learn_session(stdio_bus_t *bus, sb_worker *worker, sb_peer *client, sb_span result, sb_error *why)
{
    sb_router *router = &bus->ctx.router;
    sb_span token = sb_protocol_session(result), name;
    uint32_t session;
    if (token.ptr == NULL) return true;
    name = sb_plain_text(bus, token);
    session = name.ptr != NULL ? sb_router_session(router, worker->pool->key, name, true) : SB_NONE;
    if (session == SB_NONE) {
        *why = sb_error_of(SB_RPC_OVERLOADED, "overloaded", "Too many sessions");
        return false;
    }
    if (sb_router_session_at(router, session)->created &&
        sb_router_session_at(router, session)->worker != &worker->peer) {
        *why = sb_error_of(SB_RPC_INTERNAL_ERROR, "session_exists",
                           "The session that the worker has created has the name of another worker's");
        return false;
    }
    sb_session_create(router, session, &worker->peer, client);
    return true;
}

/* False with the reason if the answer can't be handed on, since what it promises would not hold. */
static bool learn(stdio_bus_t *bus, sb_worker *worker, uint32_t entry, const sb_envelope *envelope, sb_span frame,
                  sb_error *why)
{
    sb_router *router = &bus->ctx.router;
    const sb_request *request = sb_router_request(router, entry);
    sb_span result = sb_member_value(frame, envelope->result);
    uint32_t session = request->session;
    if (envelope->error.end != 0) return true;
    switch ((sb_meaning)request->meaning) {
    case SB_MEANS_LOAD_SESSION:
        if (session != SB_NONE && !sb_router_session_at(router, session)->own) {
            sb_session_create(router, session, &worker->peer, sb_router_asker(router, request));
        }
        return learn_session(bus, worker, sb_router_asker(router, request), result, why);
    case SB_MEANS_NEW_SESSION: return learn_session(bus, worker, sb_router_asker(router, request), result, why);
    case SB_MEANS_CLOSE_SESSION:
        if (session != SB_NONE) sb_session_end(router, session);
        return true;
    case SB_MEANS_STATELESS:
        if (worker->pool->hello.era == SB_ERA_UNKNOWN) worker->pool->hello.era = SB_ERA_STATELESS;
        return true;
    default: return true;
    }
}

/* ---- responses -------------------------------------------------------------------------- */

static void fail_answered(stdio_bus_t *bus, sb_worker *worker, sb_span id, sb_error *error);

/* What nobody waits for any more. A turn that ends here may have another one wait for it. */
static void swallow(stdio_bus_t *bus, sb_worker *worker, uint32_t entry)
{
    sb_router *router = &bus->ctx.router;
    uint32_t session = sb_router_request(router, entry)->session;
    sb_router_end(router, entry);
    bus->more.late_answers++;
    if (session != SB_NONE) {
        sb_pool_flush_session(bus, worker->pool, sb_text_span(&sb_router_session_at(router, session)->name));
    }
}

static void lose_response(stdio_bus_t *bus, sb_worker *worker, sb_span id)
{
    /* Where the bus makes up every id, what was given up may leave no trace. */
    if (id.ptr != NULL && sb_issues_ids(worker->pool) && sb_router_has_issued(&worker->peer, id)) {
        bus->more.late_answers++;
        return;
    }
    bus->more.unattributed_frames++;
    sb_report_lost(bus, STDIO_BUS_EVENT_UNATTRIBUTED, worker, "an answer to no request");
}

static void deliver_response(stdio_bus_t *bus, sb_worker *worker, const sb_envelope *envelope, sb_span frame)
{
    sb_router *router = &bus->ctx.router;
    sb_span id = sb_member_value(frame, envelope->id);
    uint32_t entry = id.ptr != NULL ? sb_router_answered(router, &worker->peer, id) : SB_NONE;
    sb_request *request;
    sb_peer *client;
    sb_text original;
    sb_error why;
    if (entry == SB_NONE) {
        lose_response(bus, worker, id);
        return;
    }
    request = sb_router_request(router, entry);
    if (request->given_up) {
        swallow(bus, worker, entry);
        return;
    }
    if (request->meaning != SB_MEANS_NOTHING && !learn(bus, worker, entry, envelope, frame, &why)) {
        fail_answered(bus, worker, id, &why);
        return;
    }
    sb_latency_add(&sb_pool_counted(worker->pool)->latency, sb_ticks_between(request->asked_at, bus->ctx.loop.ticks));
    client = sb_router_asker(router, request);
    if (request->issued != 0) {
        sb_router_end_take(router, entry, &original);
        sb_dispatch_answer(bus, client, worker, envelope, frame, sb_text_span(&original));
        sb_text_free(&original);
    } else {
        sb_delivery delivery = delivery_of(worker, envelope, frame);
        sb_router_end(router, entry);
        sb_deliver(bus, client, &delivery);
    }
}

/* ---- what workers say on their own --------------------------------------------------------- */

/* A worker's request or notification on its way. */
typedef struct {
    sb_worker *worker;
    const sb_envelope *envelope;
    sb_span frame;
    sb_span params;
    sb_meaning meaning;
    sb_peer *client;  /* whom it is for; NULL: nobody */
    uint32_t request; /* the pending request it belongs to, or SB_NONE */
    uint32_t session; /* the session it names, or SB_NONE */
    sb_edits edits;
} message;

/* Belongs to the request that the worker names by id or token; what it is called by changes with it. */
static void belongs_to(stdio_bus_t *bus, message *m, uint32_t entry, sb_span token, sb_span original)
{
    m->request = entry;
    m->client = sb_router_asker(&bus->ctx.router, sb_router_request(&bus->ctx.router, entry));
    sb_splice_replace_at(&m->edits, m->frame, token, original);
}

/* A live request of a client that stands on the wire under this token, or SB_NONE. */
static uint32_t find_named(const stdio_bus_t *bus, const message *m, sb_span token)
{
    uint32_t entry = token.ptr != NULL ? sb_router_answered(&bus->ctx.router, &m->worker->peer, token) : SB_NONE;
    return entry != SB_NONE && !sb_router_request(&bus->ctx.router, entry)->given_up ? entry : SB_NONE;
}

/* By progress token or subscription. False if it is about a request that nobody waits for any more. */
static bool find_by_token(stdio_bus_t *bus, message *m)
{
    const sb_router *router = &bus->ctx.router;
    sb_span token;
    uint32_t entry;
    if (!sb_issues_ids(m->worker->pool)) return true;
    if (m->meaning == SB_MEANS_PROGRESS) {
        token = sb_protocol_told_token(m->params);
        entry = find_named(bus, m, token);
        if (entry == SB_NONE || !sb_router_request(router, entry)->noted) return false;
        belongs_to(bus, m, entry, token, sb_router_noted(router, entry));
        return true;
    }
    /* An agent has no subscriptions, and its chunks need not be searched for one. */
    if (m->worker->pool->hello.protocol != SB_PROTOCOL_MCP) return true;
    token = sb_protocol_subscription(sb_protocol_meta(m->params));
    if (token.ptr == NULL) return true;
    entry = find_named(bus, m, token);
    if (entry == SB_NONE) return false;
    belongs_to(bus, m, entry, token, sb_text_span(&sb_router_request(router, entry)->id));
    return true;
}

/* By the session that the message names. */
static void find_by_session(stdio_bus_t *bus, message *m)
{
    sb_router *router = &bus->ctx.router;
    sb_span token = sb_session_token(m->envelope, m->frame), name = {NULL, 0};
    if (token.ptr != NULL) name = sb_plain_text(bus, token);
    if (name.ptr == NULL) return;
    sb_bus_tell_time(bus);
    m->session = sb_router_session(router, m->worker->pool->key, name, false);
    if (m->session == SB_NONE || m->client != NULL) return;
    m->request = sb_session_waiting(router, m->session);
    m->client = m->request != SB_NONE ? sb_router_asker(router, sb_router_request(router, m->request))
                                      : sb_router_session_at(router, m->session)->owner;
}

/* Nothing in the message says whom it is for. */
static void find_only_client(stdio_bus_t *bus, message *m)
{
    sb_router *router = &bus->ctx.router;
    sb_peer *peer = &m->worker->peer;
    if (m->worker->pool->model != NULL) {
        m->client = m->worker->pool->tenant;
        return;
    }
    /* There, what says nothing of whom it is for should not be said [MCP 2026-07-28 Subscriptions]. */
    if (m->worker->pool->hello.era == SB_ERA_STATELESS) return;
    m->client = sb_router_only_client(router, peer);
    /* With no client at all, what a worker says belongs to the host it lives with. */
    if (m->client == NULL && peer->links == SB_NONE && peer->tombs.count == 0 && !bus->no_host) m->client = &bus->host;
}

/* Finds out whom it is for. False if it is about what nobody wants to hear of any more. */
static bool find_client(stdio_bus_t *bus, message *m)
{
    if (!find_by_token(bus, m)) return false;
    find_by_session(bus, m);
    if (m->session == SB_NONE) {
        if (m->client == NULL) find_only_client(bus, m);
        return true;
    }
    /* In a session whose client has left, it is nobody's. */
    return sb_router_session_at(&bus->ctx.router, m->session)->ending == SB_NONE;
}

static bool deliver(stdio_bus_t *bus, const message *m, sb_peer *client, sb_span new_id)
{
    sb_delivery delivery = delivery_of(m->worker, m->envelope, m->frame);
    delivery.request = m->request;
    delivery.new_id = new_id;
    if (m->edits.count > 0) delivery.edits = &m->edits;
    return sb_deliver(bus, client, &delivery);
}

static void deliver_request(stdio_bus_t *bus, message *m)
{
    sb_router *router = &bus->ctx.router;
    sb_span id = sb_member_value(m->frame, m->envelope->id), token = {NULL, 0}, progress = token;
    bool wanted = find_client(bus, m), issue = sb_issues_ids(m->worker->pool);
    sb_conn *conn = m->client != NULL ? sb_conn_of(bus, m->client) : NULL;
    char wire[SB_WIRE_MAX];
    uint32_t entry, link = SB_NONE;
    if (m->client == NULL || (conn != NULL && conn->eof) || m->worker->peer.asked >= bus->ctx.limits.max_pending) wanted = false;
    if (wanted) link = sb_router_link(router, m->client, &m->worker->peer);
    if (link != SB_NONE) token = sb_router_ask(router, link, SB_UP, id, issue, m->session, wire, &entry);
    if (token.ptr == NULL) {
        bus->more.unattributed_frames++;
        sb_report_lost(bus, STDIO_BUS_EVENT_UNATTRIBUTED, m->worker, "a request that no client can answer");
        sb_dispatch_decline(bus, m->worker, id, m->meaning);
        return;
    }
    if (conn != NULL) sb_router_request(router, entry)->at = conn->sink.queued;
    sb_router_mean(router, entry, m->meaning);
    if (sb_router_request(router, entry)->issued != 0) sb_splice_replace(&m->edits, m->envelope->id, token);
    if (issue) progress = sb_protocol_asked_token(sb_protocol_meta(m->params));
    /* Without memory for it the worker hears nothing of progress, which it has to cope with anyway. */
    if (progress.ptr != NULL && sb_router_note(router, entry, progress)) {
        sb_splice_replace_at(&m->edits, m->frame, progress, token);
    }
    /* A client to which it can't be delivered is closed, and that declines it. */
    if (!deliver(bus, m, m->client, token) && conn == NULL) sb_dispatch_decline_asked(bus, entry);
}

/* A worker no longer wants to know what it had asked. False if it had asked nothing of that name. */
static bool deliver_cancel(stdio_bus_t *bus, message *m)
{
    sb_router *router = &bus->ctx.router;
    sb_span id = sb_protocol_cancelled(m->params), none = {NULL, 0};
    uint32_t entry = id.ptr != NULL ? sb_router_asked(router, &m->worker->peer, id) : SB_NONE;
    char wire[SB_WIRE_MAX];
    sb_peer *client;
    if (entry == SB_NONE) return false;
    client = sb_router_request(router, entry)->holder;
    sb_splice_replace_at(&m->edits, m->frame, id, sb_router_wire(router, entry, wire));
    if (sb_protocol_ends_wait(m->worker->pool->hello.protocol)) sb_router_give_up(router, entry);
    deliver(bus, m, client, none);
    return true;
}

/* To every client of the worker. One that can't take it is closed, and what the host does then may close others. */
static void deliver_to_all(stdio_bus_t *bus, const message *m)
{
    static const sb_span none = {NULL, 0};
    sb_peer *peer = &m->worker->peer;
    peer->next_link = peer->links;
    while (peer->next_link != SB_NONE) {
        const sb_link *link = sb_router_link_at(&bus->ctx.router, peer->next_link);
        peer->next_link = link->next_of_worker;
        if (link->client != &bus->host || !bus->no_host) deliver(bus, m, link->client, none);
    }
}

static void deliver_notification(stdio_bus_t *bus, message *m)
{
    static const sb_span none = {NULL, 0};
    if (m->meaning == SB_MEANS_CANCEL) {
        if (deliver_cancel(bus, m)) return;
        if (sb_issues_ids(m->worker->pool)) {
            bus->more.stale_cancels++;
            return;
        }
    }
    if (!find_client(bus, m)) {
        bus->more.late_answers++;
    } else if (m->meaning == SB_MEANS_LIST_CHANGED && m->request == SB_NONE && m->worker->peer.links != SB_NONE) {
        deliver_to_all(bus, m);
    } else if (m->client != NULL) {
        deliver(bus, m, m->client, none);
    } else {
        bus->more.unattributed_frames++;
        sb_report_lost(bus, STDIO_BUS_EVENT_UNATTRIBUTED, m->worker, "a notification");
    }
}

static void deliver_own(stdio_bus_t *bus, sb_worker *worker, const sb_envelope *envelope, sb_span frame)
{
    message m;
    bool asks = envelope->kind == SB_KIND_REQUEST;
    m.worker = worker;
    m.envelope = envelope;
    m.frame = frame;
    m.params = sb_member_value(frame, envelope->params);
    m.meaning = sb_protocol_worker_means(sb_member_value(frame, envelope->method));
    m.client = NULL;
    m.request = m.session = SB_NONE;
    m.edits.count = 0;
    if (asks != (m.meaning <= SB_MEANS_LAST_REQUEST)) m.meaning = SB_MEANS_NOTHING;
    if (asks) {
        deliver_request(bus, &m);
    } else {
        deliver_notification(bus, &m);
    }
}

/* ---- what can't be handed on ------------------------------------------------------------------ */

/* How often a worker's garbage is worth a log line. */
#define GARBAGE_LOG_MS 1000u

static void garbage(stdio_bus_t *bus, sb_worker *worker, sb_span line)
{
    uint64_t now = bus->ctx.loop.now;
    if (line.len > 256) line.len = 256;
    bus->more.worker_garbage++;
    sb_handshake_garbage(worker);
    sb_report_worker(bus, STDIO_BUS_EVENT_WORKER_GARBAGE, worker, line, 0);
    if (now < worker->garbage_log_at) return;
    worker->garbage_log_at = now + GARBAGE_LOG_MS;
    sb_log(&bus->ctx, SB_LOG_WARN, "worker %d (%s) printed a line that is no JSON-RPC message: %.*s", worker->id,
           worker->config->id, (int)line.len, line.ptr);
}

/* An answer that can't be handed on: whoever asked is told, since no other will come. */
static void fail_answered(stdio_bus_t *bus, sb_worker *worker, sb_span id, sb_error *error)
{
    sb_router *router = &bus->ctx.router;
    uint32_t entry = id.ptr != NULL ? sb_router_answered(router, &worker->peer, id) : SB_NONE;
    sb_peer *client;
    sb_text original;
    if (entry == SB_NONE) return;
    client = sb_router_asker(router, sb_router_request(router, entry));
    sb_router_end_take(router, entry, &original);
    error->pool = worker->config->id;
    error->worker = worker->id;
    error->sent = 1;
    /* Without a client it had been given up. */
    if (client != NULL) {
        sb_deliver_error(bus, client, sb_text_span(&original), error, worker->id, worker->generation);
    }
    sb_text_free(&original);
}

/* An object, but no message. With the id of a request it was meant as its answer. */
static void invalid(stdio_bus_t *bus, sb_worker *worker, const sb_envelope *envelope, sb_span frame)
{
    sb_error error = sb_error_of(SB_RPC_INTERNAL_ERROR, "invalid_answer", "The worker's answer has neither result nor error");
    sb_span id = sb_member_value(frame, envelope->id);
    garbage(bus, worker, frame);
    if (envelope->method.end == 0 && !sb_handshake_unusable(bus, worker, id)) fail_answered(bus, worker, id, &error);
}

void sb_dispatch_from_worker(stdio_bus_t *bus, sb_worker *worker, sb_span frame)
{
    sb_envelope envelope;
    if (sb_envelope_scan(frame, &envelope) != SB_ENVELOPE_OK) {
        garbage(bus, worker, frame);
        return;
    }
    switch (envelope.kind) {
    case SB_KIND_INVALID: invalid(bus, worker, &envelope, frame); break;
    case SB_KIND_RESPONSE:
        if (worker->hello != 0 && sb_handshake_answered(bus, worker, &envelope, frame)) break;
        if (worker->fence != 0 && sb_cancel_fenced(bus, worker, sb_member_value(frame, envelope.id))) break;
        deliver_response(bus, worker, &envelope, frame);
        break;
    case SB_KIND_REQUEST:
    case SB_KIND_NOTIFICATION: deliver_own(bus, worker, &envelope, frame); break;
    }
}

/* A worker's request above the limit: nobody sees it, so that the worker is told. */
static void refuse_oversize_request(stdio_bus_t *bus, sb_worker *worker, sb_span id)
{
    sb_error error = sb_error_of(SB_RPC_INVALID_REQUEST, "too_large", "Message too large");
    sb_buf text = {0};
    if (id.ptr == NULL) return;
    if (sb_answer_error(&text, id, &error)) sb_dispatch_put(bus, worker, &text);
    sb_buf_free(&text);
}

void sb_dispatch_worker_oversize(stdio_bus_t *bus, sb_worker *worker, sb_span beginning)
{
    sb_error error = sb_error_of(SB_RPC_INTERNAL_ERROR, "too_large", "The worker's answer is larger than max_input_buffer");
    sb_span id = sb_envelope_partial_id(beginning);
    bus->more.oversize_frames++;
    sb_log(&bus->ctx, SB_LOG_WARN, "worker %d (%s): a line above max_input_buffer was skipped", worker->id,
           worker->config->id);
    if (sb_envelope_partial_asks(beginning)) {
        refuse_oversize_request(bus, worker, id);
    } else if (!sb_handshake_unusable(bus, worker, id)) {
        fail_answered(bus, worker, id, &error);
    }
}
