#include "dispatch.h"

/* ---- refusing ------------------------------------------------------------------------ */

int sb_refuse(stdio_bus_t *bus, const sb_sender *sender, sb_span id, const sb_error *error, int status)
{
    if (sender->conn == NULL && !sender->answer_errors) return status;
    sb_deliver_error(bus, sender->peer, id, error, -1, 0);
    return STDIO_BUS_OK;
}

void sb_drop_message(stdio_bus_t *bus, const char *why)
{
    bus->more.dropped_frames++;
    sb_report_lost(bus, STDIO_BUS_EVENT_DROPPED, NULL, why);
}

int sb_refuse_message(stdio_bus_t *bus, const sb_message *message, const sb_error *error, int status)
{
    if (message->envelope->kind == SB_KIND_REQUEST) {
        sb_span id = sb_member_value(message->frame, message->envelope->id);
        return sb_refuse(bus, message->sender, id, error, status);
    }
    sb_drop_message(bus, error->reason);
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
    sb_refuse(bus, sender, no_id, &error, STDIO_BUS_ERR_INVALID);
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
    sb_refuse(bus, sender, sb_envelope_partial_id(beginning), &error, STDIO_BUS_ERR_BUFFER);
    if (!sb_envelope_partial_asks(beginning)) {
        sb_dispatch_decline_answered(bus, sender->peer, sb_envelope_partial_id(beginning));
    }
    if (conn->source.framer.by_length) sb_conn_finish(conn);
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
    if (sb_issues_ids(worker->pool)) sb_splice_drop_routing(&edits, frame, envelope, sb_speaks_only(worker->pool));
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

/* Whether a method is this one of the bus's own. With escapes it is longer; it must not reach a worker that way either. */
static bool is_own(sb_span method, const char *name)
{
    return method.len >= strlen(name) + 2 && sb_json_string_is(method, name);
}

static bool is_auth(sb_span method)
{
    return is_own(method, "stdio_bus/auth");
}

/* stdio_bus/auth: where no token is asked for, any will do. stdio_bus/cancel: as if the client had left, for one request. */
static bool serve_own(stdio_bus_t *bus, const sb_sender *sender, const sb_envelope *envelope, sb_span frame)
{
    sb_span method = sb_member_value(frame, envelope->method), result = sb_span_of("{\"ok\":true}");
    if (is_own(method, "stdio_bus/cancel")) {
        bool found = sb_cancel_own(bus, sender, sb_member_value(frame, envelope->params));
        if (!found) result = sb_span_of("{\"ok\":false}");
    } else if (!is_auth(method)) {
        return false;
    }
    if (envelope->kind == SB_KIND_REQUEST) {
        sb_deliver_result(bus, sender->peer, sb_member_value(frame, envelope->id), result);
    }
    return true;
}

/* Whether a message shows the token that the client's listener asks for. */
static bool shows_token(stdio_bus_t *bus, const sb_conn *conn, const sb_envelope *envelope, sb_span frame)
{
    sb_span params = sb_member_value(frame, envelope->params), token = {NULL, 0};
    if (envelope->kind != SB_KIND_REQUEST || !is_auth(sb_member_value(frame, envelope->method))) return false;
    if (params.ptr != NULL && params.ptr[0] == '{') token = sb_json_find(params, "token");
    if (!sb_json_is_text(token)) return false;
    token = sb_plain_text(bus, token);
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
            serve_own(bus, sender, &envelope, frame);
            return STDIO_BUS_OK;
        }
    }
    sb_dispatch_turn_away(bus, sender->conn, id);
    return STDIO_BUS_ERR_INVALID;
}

/* Of several ids a worker may read another one than the bus. */
static bool has_one_id(sb_span frame)
{
    sb_json_walk walk;
    sb_span key, value, object = {sb_json_space(frame.ptr, frame.ptr + frame.len), 0};
    int ids = 0;
    object.len = (size_t)(frame.ptr + frame.len - object.ptr);
    sb_json_walk_init(&walk, object);
    while (sb_json_walk_next(&walk, &key, &value) == SB_WALK_MEMBER) ids += sb_json_string_is(key, "id");
    return ids <= 1;
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
    if (envelope.kind == SB_KIND_INVALID || (envelope.repeated && !has_one_id(frame))) {
        error = sb_error_of(SB_RPC_INVALID_REQUEST, "invalid_request", "Invalid Request");
        bus->more.parse_errors++;
        return sb_refuse(bus, sender, sb_member_value(frame, envelope.id), &error, STDIO_BUS_ERR_INVALID);
    }
    if (!is_admitted(bus, &envelope)) {
        sb_message message = {sender, &envelope, frame, NULL, SB_MEANS_NOTHING, {NULL, 0}};
        error = sb_error_of(SB_RPC_SHUTTING_DOWN, "shutting_down", "The bus is shutting down");
        error.sent = 0;
        return sb_refuse_message(bus, &message, &error, STDIO_BUS_ERR_STATE);
    }
    if (envelope.kind == SB_KIND_RESPONSE) {
        status = answer_worker(bus, sender, &envelope, frame);
    } else {
        bool done = serve_own(bus, sender, &envelope, frame);
        if (!done && envelope.kind == SB_KIND_NOTIFICATION) done = sb_cancel_by_name(bus, sender, &envelope, frame);
        status = done ? STDIO_BUS_OK : sb_route(bus, sender, &envelope, frame);
    }
    if (status == STDIO_BUS_OK) {
        bus->stats.messages_in++;
        bus->stats.bytes_in += frame.len;
    }
    return status;
}
