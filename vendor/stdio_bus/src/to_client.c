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

/* Whom a worker's own message is for. */
typedef struct {
    sb_peer *client;  /* NULL: nobody */
    uint32_t request; /* the pending request it belongs to, or SB_NONE */
} addressee;

/* By the session that the message names. */
static addressee find_by_session(stdio_bus_t *bus, sb_worker *worker, const sb_envelope *envelope, sb_span frame)
{
    sb_router *router = &bus->ctx.router;
    sb_span token = sb_session_token(envelope, frame), name = {NULL, 0};
    addressee to = {NULL, SB_NONE};
    uint32_t session;
    if (token.ptr != NULL) name = sb_plain_text(bus, token);
    if (name.ptr == NULL) return to;
    sb_bus_tell_time(bus);
    session = sb_router_session(router, worker->pool->key, name, false);
    if (session == SB_NONE) return to;
    to.request = sb_session_waiting(router, session);
    to.client = to.request != SB_NONE ? sb_router_asker(router, sb_router_request(router, to.request))
                                      : sb_router_session_at(router, session)->owner;
    return to;
}

static addressee find_client(stdio_bus_t *bus, sb_worker *worker, const sb_envelope *envelope, sb_span frame)
{
    addressee to = find_by_session(bus, worker, envelope, frame);
    if (to.client == NULL) to.client = sb_router_only_client(&bus->ctx.router, &worker->peer);
    /* With no client at all, what a worker says belongs to the host it lives with. */
    if (to.client == NULL && worker->peer.links == SB_NONE && !bus->no_host) to.client = &bus->host;
    return to;
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
    addressee to = find_client(bus, worker, envelope, frame);
    sb_peer *client = to.client;
    sb_conn *conn = client != NULL ? sb_conn_of(bus, client) : NULL;
    sb_delivery delivery = delivery_of(worker, envelope, frame);
    char wire[SB_WIRE_MAX];
    uint32_t entry, link = SB_NONE;
    sb_edits edits;
    if (client != NULL && (conn == NULL || !conn->eof)) link = sb_router_link(router, client, &worker->peer);
    if (link != SB_NONE) {
        token = sb_router_ask(router, link, SB_UP, id, sb_issues_ids(worker->pool), SB_NONE, wire, &entry);
    }
    if (token.ptr == NULL) {
        bus->more.unattributed_frames++;
        sb_report_lost(bus, STDIO_BUS_EVENT_UNATTRIBUTED, worker, "a request that no client can answer");
        sb_dispatch_decline(bus, worker, id, permission);
        return;
    }
    delivery.request = to.request;
    if (conn != NULL) sb_router_request(router, entry)->at = conn->sink.queued;
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

/* How often a worker's garbage is worth a log line. */
#define GARBAGE_LOG_MS 1000u

static void garbage(stdio_bus_t *bus, sb_worker *worker, sb_span line)
{
    uint64_t now = bus->ctx.loop.now;
    if (line.len > 256) line.len = 256;
    bus->more.worker_garbage++;
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
    garbage(bus, worker, frame);
    if (envelope->method.end == 0) fail_answered(bus, worker, sb_member_value(frame, envelope->id), &error);
}

void sb_dispatch_from_worker(stdio_bus_t *bus, sb_worker *worker, sb_span frame)
{
    sb_envelope envelope;
    sb_delivery delivery;
    addressee to;
    if (sb_envelope_scan(frame, &envelope) != SB_ENVELOPE_OK) {
        garbage(bus, worker, frame);
        return;
    }
    switch (envelope.kind) {
    case SB_KIND_INVALID: invalid(bus, worker, &envelope, frame); break;
    case SB_KIND_RESPONSE: deliver_response(bus, worker, &envelope, frame); break;
    case SB_KIND_REQUEST: deliver_request(bus, worker, &envelope, frame); break;
    case SB_KIND_NOTIFICATION:
        to = find_client(bus, worker, &envelope, frame);
        if (to.client != NULL) {
            delivery = delivery_of(worker, &envelope, frame);
            delivery.request = to.request;
            sb_deliver(bus, to.client, &delivery);
        } else {
            bus->more.unattributed_frames++;
            sb_report_lost(bus, STDIO_BUS_EVENT_UNATTRIBUTED, worker, "a notification");
        }
        break;
    }
}

/* A worker's request above the limit: nobody sees it, so that the worker is told. */
static void refuse_oversize_request(stdio_bus_t *bus, sb_worker *worker, sb_span id)
{
    sb_error error = sb_error_of(SB_RPC_INVALID_REQUEST, "too_large", "Message too large");
    sb_buf text = {0};
    if (id.ptr == NULL || worker->in.fd < 0) return;
    if (sb_answer_error(&text, id, &error)) {
        sb_span frame = {text.data, text.len};
        sb_dispatch_send(bus, worker, SB_NONE, frame, NULL);
    }
    sb_buf_free(&text);
}

void sb_dispatch_worker_oversize(stdio_bus_t *bus, sb_worker *worker, sb_span beginning)
{
    sb_error error = sb_error_of(SB_RPC_INTERNAL_ERROR, "too_large", "The worker's answer is larger than max_input_buffer");
    bus->more.oversize_frames++;
    sb_log(&bus->ctx, SB_LOG_WARN, "worker %d (%s): a line above max_input_buffer was skipped", worker->id,
           worker->config->id);
    if (sb_envelope_partial_asks(beginning)) {
        refuse_oversize_request(bus, worker, sb_envelope_partial_id(beginning));
    } else {
        fail_answered(bus, worker, sb_envelope_partial_id(beginning), &error);
    }
}
