#include <stddef.h>

#include "bus.h"

sb_conn *sb_conn_of(stdio_bus_t *bus, sb_peer *client)
{
    return client == &bus->host ? NULL : SB_CONTAINER(client, sb_conn, peer);
}

static void count_out(stdio_bus_t *bus, size_t len)
{
    bus->stats.messages_out++;
    bus->stats.bytes_out += len;
}

static bool drop(stdio_bus_t *bus, const char *why)
{
    bus->more.dropped_frames++;
    sb_report_lost(bus, STDIO_BUS_EVENT_DROPPED, NULL, why);
    return false;
}

/* A client that doesn't read is closed rather than given a stream with holes. */
static bool has_room(stdio_bus_t *bus, sb_conn *conn, size_t len)
{
    size_t queued = conn->sink.outbox.bytes;
    if (queued == 0 || queued + len <= bus->ctx.limits.max_output_queue) return true;
    sb_sink_flush(&bus->ctx, &conn->sink);
    queued = conn->sink.outbox.bytes;
    return conn->closed || queued == 0 || queued + len <= bus->ctx.limits.max_output_queue;
}

static bool deliver_to_conn(stdio_bus_t *bus, sb_conn *conn, const sb_delivery *delivery)
{
    size_t len = delivery->frame.len;
    char *room;
    if (delivery->edits != NULL) len = sb_splice_length(delivery->edits, delivery->frame);
    if (!has_room(bus, conn, len)) {
        sb_conn_close(conn, "overflow");
        return drop(bus, "the client does not read");
    }
    if (conn->closed) return drop(bus, "the client is gone");
    room = sb_sink_reserve(&bus->ctx, &conn->sink, len);
    if (room == NULL) {
        sb_conn_close(conn, "error");
        return drop(bus, "out of memory");
    }
    if (delivery->edits != NULL) {
        sb_splice_copy(delivery->edits, delivery->frame, room);
    } else {
        memcpy(room, delivery->frame.ptr, len);
    }
    sb_sink_commit(&bus->ctx, &conn->sink, len);
    count_out(bus, len);
    return true;
}

static void call_host(stdio_bus_t *bus, const stdio_bus_frame_t *frame)
{
    count_out(bus, frame->len);
    if (bus->ext.on_frame != NULL) {
        bus->ext.on_frame(bus, frame, bus->options.user_data);
    } else if (bus->options.on_message != NULL) {
        bus->options.on_message(bus, frame->data, frame->len, bus->options.user_data);
    }
}

static void point_into(stdio_bus_frame_t *frame, const sb_delivery *delivery)
{
    bool moved = delivery->edits != NULL;
    if (delivery->id.end != 0) {
        frame->id = frame->data + (moved ? sb_splice_moved(delivery->edits, delivery->id.value) : delivery->id.value);
        frame->id_len = delivery->new_id.ptr != NULL ? delivery->new_id.len : delivery->id.end - delivery->id.value;
    }
    if (delivery->session.end != 0) {
        frame->session = frame->data + (moved ? sb_splice_moved(delivery->edits, delivery->session.value)
                                              : delivery->session.value);
        frame->session_len = delivery->session.end - delivery->session.value;
    }
}

/* A copy, since the host may give the request up while it is told. False without memory. */
static bool name_request(stdio_bus_t *bus, stdio_bus_frame_t *frame, uint32_t request)
{
    sb_span id;
    if (request == SB_NONE) return true;
    id = sb_text_span(&sb_router_request(&bus->ctx.router, request)->id);
    bus->request.pos = bus->request.len = 0;
    if (!sb_buf_reserve(&bus->request, id.len)) return false;
    memcpy(bus->request.data, id.ptr, id.len);
    frame->request = bus->request.data;
    frame->request_len = id.len;
    return true;
}

static bool deliver_to_host(stdio_bus_t *bus, const sb_delivery *delivery)
{
    stdio_bus_frame_t frame = {0};
    frame.size = sizeof frame;
    frame.kind = delivery->kind;
    frame.worker = delivery->worker;
    frame.generation = delivery->generation;
    if (!name_request(bus, &frame, delivery->request)) return drop(bus, "out of memory");
    if (delivery->edits != NULL) {
        frame.len = sb_splice_length(delivery->edits, delivery->frame);
        bus->compose.pos = bus->compose.len = 0;
        if (!sb_buf_reserve(&bus->compose, frame.len + 1)) return drop(bus, "out of memory");
        sb_splice_copy(delivery->edits, delivery->frame, bus->compose.data);
        bus->compose.data[frame.len] = '\0';
        frame.data = bus->compose.data;
    } else {
        /* The byte behind a frame from a source is a line's end that has been consumed. */
        ((char *)(uintptr_t)delivery->frame.ptr)[delivery->frame.len] = '\0';
        frame.data = delivery->frame.ptr;
        frame.len = delivery->frame.len;
    }
    point_into(&frame, delivery);
    call_host(bus, &frame);
    return true;
}

bool sb_deliver(stdio_bus_t *bus, sb_peer *client, const sb_delivery *delivery)
{
    sb_conn *conn = sb_conn_of(bus, client);
    return conn != NULL ? deliver_to_conn(bus, conn, delivery) : deliver_to_host(bus, delivery);
}

/* ---- what the bus says itself ---------------------------------------------------- */

/* The host hears it from the next hand-out, never while a table is being walked. */
static void post_letter(stdio_bus_t *bus, uint32_t kind, sb_span frame, sb_span id, int worker, uint32_t generation)
{
    sb_letter *letter = sb_alloc(sizeof *letter + frame.len + 1);
    if (letter == NULL) {
        drop(bus, "out of memory");
        return;
    }
    letter->next = NULL;
    letter->kind = kind;
    letter->worker = worker;
    letter->generation = generation;
    letter->id_at = sizeof "{\"jsonrpc\":\"2.0\",\"id\":" - 1;
    letter->id_len = id.len;
    letter->len = frame.len;
    memcpy(letter->data, frame.ptr, frame.len);
    letter->data[frame.len] = '\0';
    if (bus->last_letter != NULL) {
        bus->last_letter->next = letter;
    } else {
        bus->letters = letter;
    }
    bus->last_letter = letter;
}

static void deliver_own(stdio_bus_t *bus, sb_peer *client, uint32_t kind, const sb_buf *text, sb_span id, int worker,
                        uint32_t generation)
{
    sb_conn *conn = sb_conn_of(bus, client);
    sb_delivery delivery = {0};
    delivery.request = SB_NONE;
    delivery.frame.ptr = text->data;
    delivery.frame.len = text->len;
    if (conn != NULL) {
        deliver_to_conn(bus, conn, &delivery);
    } else {
        post_letter(bus, kind, delivery.frame, id, worker, generation);
    }
}

void sb_deliver_error(stdio_bus_t *bus, sb_peer *client, sb_span id, const sb_error *error, int worker,
                      uint32_t generation)
{
    sb_buf text = {0};
    if (sb_answer_error(&text, id, error)) {
        deliver_own(bus, client, STDIO_BUS_FRAME_RESPONSE, &text, id, worker, generation);
    } else {
        drop(bus, "out of memory");
    }
    sb_buf_free(&text);
}

void sb_deliver_result(stdio_bus_t *bus, sb_peer *client, sb_span id, sb_span result)
{
    sb_buf text = {0};
    if (sb_answer_result(&text, id, result)) {
        deliver_own(bus, client, STDIO_BUS_FRAME_RESPONSE, &text, id, -1, 0);
    } else {
        drop(bus, "out of memory");
    }
    sb_buf_free(&text);
}

void sb_deliver_notice(stdio_bus_t *bus, sb_peer *client, const sb_buf *text, const sb_worker *worker)
{
    static const sb_span no_id = {NULL, 0};
    deliver_own(bus, client, STDIO_BUS_FRAME_NOTIFICATION, text, no_id, worker->id, worker->generation);
}

int sb_deliver_letters(stdio_bus_t *bus)
{
    int count = 0;
    /* Those posted meanwhile wait: each step is bounded. */
    sb_letter *letter = bus->letters;
    bus->letters = bus->last_letter = NULL;
    while (letter != NULL) {
        sb_letter *next = letter->next;
        stdio_bus_frame_t frame = {0};
        frame.size = sizeof frame;
        frame.kind = letter->kind;
        frame.flags = STDIO_BUS_FRAME_FROM_BUS;
        frame.worker = letter->worker;
        frame.generation = letter->generation;
        frame.data = letter->data;
        frame.len = letter->len;
        frame.id = letter->id_len > 0 ? letter->data + letter->id_at : NULL;
        frame.id_len = letter->id_len;
        call_host(bus, &frame);
        sb_free(letter);
        letter = next;
        count++;
    }
    return count;
}
