/*
 * cancel.c - what is said about a request by naming it: that nobody wants it
 * answered any more (MCP [Cancellation], ACP [Cancellation, Prompt Turn]), or
 * how far it has got (MCP [Progress]). The names are mapped like the ids
 * themselves, so that nobody can name what is somebody else's.
 */
#include "dispatch.h"

/* The worker that holds a client's request; NULL if it still waits in a queue. */
static sb_worker *worker_of(const sb_request *request)
{
    return request->holder->queue ? NULL : SB_CONTAINER(request->holder, sb_worker, peer);
}

/* ---- the bus gives up a request -------------------------------------------------------- */

static void tell_worker(stdio_bus_t *bus, sb_worker *worker, uint32_t entry)
{
    const sb_request *request = sb_router_request(&bus->ctx.router, entry);
    sb_protocol protocol = worker->pool->hello.protocol;
    char wire[SB_WIRE_MAX];
    sb_buf text = {0};
    bool ok;
    if (request->meaning == SB_MEANS_PROMPT && request->session != SB_NONE) {
        const sb_session *session = sb_router_session_at(&bus->ctx.router, request->session);
        ok = sb_protocol_put_cancel_turn(&text, sb_text_span(&session->name));
    } else {
        ok = sb_protocol_put_cancel(&text, protocol, sb_router_wire(&bus->ctx.router, entry, wire));
    }
    if (!ok || !sb_dispatch_put(bus, worker, &text)) bus->more.dropped_frames++;
    sb_buf_free(&text);
}

/* A permission that a worker asks for in this session, or SB_NONE; while it is ending with that turn, and not over. */
static uint32_t find_permission(const sb_router *router, uint32_t session, uint32_t ending)
{
    uint32_t entry = sb_router_session_at(router, session)->requests;
    if (sb_router_session_at(router, session)->ending != ending) return SB_NONE;
    while (entry != SB_NONE) {
        const sb_request *request = sb_router_request(router, entry);
        if (request->up && request->meaning == SB_MEANS_PERMISSION) return entry;
        entry = request->next_of_session;
    }
    return SB_NONE;
}

static void give_up_turn(stdio_bus_t *bus, uint32_t entry)
{
    sb_router *router = &bus->ctx.router;
    uint32_t session = sb_router_request(router, entry)->session, permission;
    sb_router_give_up_turn(router, entry);
    /* What the turn asked for is not given any more [ACP Prompt Turn: Cancellation]. */
    while ((permission = find_permission(router, session, entry)) != SB_NONE) sb_dispatch_withdraw(bus, permission, true);
}

/*
 * Having been told to stop, a worker gives no answer, and yet may go on for a
 * moment with what it says. With the answer to a ping it has read the
 * cancellation before: from then on its words are somebody else's.
 */
static void fence(stdio_bus_t *bus, sb_worker *worker)
{
    char wire[SB_WIRE_MAX];
    sb_buf text = {0};
    if (worker->fence != 0 || worker->peer.tombs.count == 0) return;
    if (sb_protocol_put_ping(&text, sb_router_issue(&bus->ctx.router, &worker->peer, wire)) &&
        sb_dispatch_put(bus, worker, &text)) {
        worker->fence = worker->peer.issued;
        worker->fence_for = worker->peer.tombs_made;
    }
    sb_buf_free(&text);
}

bool sb_cancel_fenced(stdio_bus_t *bus, sb_worker *worker, sb_span id)
{
    if (sb_router_number(id) != worker->fence) return false;
    worker->fence = 0;
    sb_router_forget(&bus->ctx.router, &worker->peer, worker->fence_for);
    fence(bus, worker);
    return true;
}

/* Its worker has been told that a request is not to be answered [MCP Cancellation]. */
static void stop_waiting(stdio_bus_t *bus, sb_worker *worker, uint32_t entry)
{
    worker->peer.stops = true;
    if (worker->pool->hello.era == SB_ERA_STATELESS) {
        /* Nothing is guessed there, and the number is never used again. */
        sb_router_end(&bus->ctx.router, entry);
        return;
    }
    sb_router_give_up(&bus->ctx.router, entry);
    if (worker->pool->hello.era == SB_ERA_HANDSHAKE) fence(bus, worker);
}

void sb_dispatch_give_up(stdio_bus_t *bus, uint32_t entry)
{
    sb_router *router = &bus->ctx.router;
    const sb_request *request = sb_router_request(router, entry);
    sb_worker *worker = worker_of(request);
    if (worker == NULL || !sb_issues_ids(worker->pool)) {
        sb_router_give_up(router, entry);
        return;
    }
    tell_worker(bus, worker, entry);
    if (sb_protocol_ends_wait(worker->pool->hello.protocol)) {
        stop_waiting(bus, worker, entry);
    } else if (request->meaning == SB_MEANS_PROMPT && request->session != SB_NONE) {
        give_up_turn(bus, entry);
    } else {
        sb_router_give_up(router, entry);
    }
}

void sb_dispatch_withdraw(stdio_bus_t *bus, uint32_t entry, bool declined)
{
    sb_router *router = &bus->ctx.router;
    const sb_request *request = sb_router_request(router, entry);
    sb_worker *worker = SB_CONTAINER(sb_router_asker(router, request), sb_worker, peer);
    sb_peer *client = request->holder;
    const sb_conn *conn = sb_conn_of(bus, client);
    char wire[SB_WIRE_MAX];
    sb_buf text = {0};
    bool tell = sb_issues_ids(worker->pool) && (conn == NULL || !conn->closed) &&
                sb_protocol_put_cancel(&text, worker->pool->hello.protocol, sb_router_wire(router, entry, wire));
    /* The entry goes first: a client that can't take the notice is closed, and all it has to do with ends. */
    if (declined) {
        sb_dispatch_decline_asked(bus, entry);
    } else {
        sb_router_give_up(router, entry);
    }
    if (tell) sb_deliver_notice(bus, client, &text, worker);
    sb_buf_free(&text);
}

/* ---- a client names a request -------------------------------------------------------------- */

/* Hands a message on with the token it names replaced by the one the worker knows; `link`: on whose account. */
static void hand_on(stdio_bus_t *bus, sb_worker *worker, uint32_t link, const sb_envelope *envelope, sb_span frame,
                    sb_span token, sb_span wire)
{
    sb_edits edits;
    edits.count = 0;
    sb_splice_drop_routing(&edits, frame, envelope, sb_speaks_only(worker->pool));
    if (edits.count < SB_EDITS_MAX) sb_splice_replace_at(&edits, frame, token, wire);
    if (worker->in.fd < 0 || !sb_dispatch_send(bus, worker, link, frame, &edits)) {
        sb_drop_message(bus, "the worker is gone");
    }
}

/* The same with what can be said any number of times. */
static void hand_on_if_room(stdio_bus_t *bus, sb_worker *worker, uint32_t link, const sb_envelope *envelope,
                            sb_span frame, sb_span token, sb_span wire)
{
    const char *why = sb_no_room(bus, worker, link, envelope, frame.len);
    if (why == NULL) {
        hand_on(bus, worker, link, envelope, frame, token, wire);
        return;
    }
    worker->refused = true;
    sb_drop_message(bus, why);
}

/* It is not even sent yet: nothing but the client's own wait has to end. */
static void cancel_queued(stdio_bus_t *bus, const sb_sender *sender, uint32_t entry, bool answers)
{
    sb_error error = sb_error_of(SB_RPC_CANCELLED, "cancelled", "Cancelled before it was sent");
    sb_text id;
    sb_router_end_take(&bus->ctx.router, entry, &id);
    error.sent = 0;
    if (answers) sb_deliver_error(bus, sender->peer, sb_text_span(&id), &error, -1, 0);
    sb_text_free(&id);
}

static bool cancel(stdio_bus_t *bus, const sb_sender *sender, const sb_envelope *envelope, sb_span frame,
                   sb_span params)
{
    sb_router *router = &bus->ctx.router;
    sb_span id = sb_protocol_cancelled(params), method = sb_member_value(frame, envelope->method);
    uint32_t entry = id.ptr != NULL ? sb_router_asked(router, sender->peer, id) : SB_NONE, link;
    char wire[SB_WIRE_MAX];
    sb_worker *worker;
    sb_pool *pool;
    bool ends;
    if (entry == SB_NONE) return false;
    worker = worker_of(sb_router_request(router, entry));
    pool = worker != NULL ? worker->pool : SB_CONTAINER(sb_router_request(router, entry)->holder, sb_pool, waiting);
    if (!sb_issues_ids(pool)) return false;
    /* By the other protocol's name it is handed on as well, but has to end nothing. */
    ends = sb_protocol_ends_wait(pool->hello.protocol) && sb_json_string_is(method, "notifications/cancelled");
    link = sb_router_request(router, entry)->link;
    if (worker == NULL) {
        cancel_queued(bus, sender, entry, !ends);
    } else if (!ends) {
        hand_on_if_room(bus, worker, link, envelope, frame, id, sb_router_wire(router, entry, wire));
    } else {
        hand_on(bus, worker, link, envelope, frame, id, sb_router_wire(router, entry, wire));
        stop_waiting(bus, worker, entry);
    }
    return true;
}

static bool progress(stdio_bus_t *bus, const sb_sender *sender, const sb_envelope *envelope, sb_span frame,
                     sb_span params)
{
    sb_router *router = &bus->ctx.router;
    sb_span token = sb_protocol_told_token(params), noted;
    uint32_t entry = token.ptr != NULL ? sb_router_answered(router, sender->peer, token) : SB_NONE;
    const sb_request *request;
    if (entry == SB_NONE) return false;
    noted = sb_router_noted(router, entry);
    if (noted.ptr == NULL) return false;
    request = sb_router_request(router, entry);
    hand_on_if_room(bus, SB_CONTAINER(sb_router_asker(router, request), sb_worker, peer), request->link, envelope, frame,
                    token, noted);
    return true;
}

bool sb_cancel_by_name(stdio_bus_t *bus, const sb_sender *sender, const sb_envelope *envelope, sb_span frame)
{
    sb_span method = sb_member_value(frame, envelope->method), params = sb_member_value(frame, envelope->params);
    switch (sb_protocol_client_means(SB_PROTOCOL_MCP, method)) {
    case SB_MEANS_CANCEL: return cancel(bus, sender, envelope, frame, params);
    case SB_MEANS_PROGRESS: return progress(bus, sender, envelope, frame, params);
    default: return false;
    }
}

bool sb_cancel_own(stdio_bus_t *bus, const sb_sender *sender, sb_span params)
{
    sb_span id = sb_protocol_cancelled(params);
    uint32_t entry = id.ptr != NULL ? sb_router_asked(&bus->ctx.router, sender->peer, id) : SB_NONE;
    if (entry == SB_NONE) {
        bus->more.stale_cancels++;
        return false;
    }
    sb_dispatch_give_up(bus, entry);
    /* It may be the last one that a drain has waited for. */
    if (bus->draining) sb_loop_wake(&bus->ctx.loop);
    return true;
}
