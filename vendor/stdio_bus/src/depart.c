#include "bus.h"

void sb_dispatch_decline(stdio_bus_t *bus, sb_worker *worker, sb_span id, sb_meaning meaning)
{
    sb_error error = sb_error_of(SB_RPC_METHOD_NOT_FOUND, "no_client", "No client can answer this request");
    sb_buf text = {0};
    bool ok;
    switch (meaning) {
    case SB_MEANS_PERMISSION:
        ok = sb_answer_result(&text, id, sb_span_of("{\"outcome\":{\"outcome\":\"cancelled\"}}"));
        break;
    case SB_MEANS_PING: ok = sb_answer_result(&text, id, sb_span_of("{}")); break;
    default: ok = sb_answer_error(&text, id, &error); break;
    }
    /* A worker that asks and asks and doesn't read. */
    ok = ok && (worker->sink.outbox.bytes == 0 || worker->sink.outbox.bytes + text.len < bus->ctx.limits.max_output_queue);
    if (!ok || !sb_dispatch_put(bus, worker, &text)) bus->more.dropped_frames++;
    sb_buf_free(&text);
}

void sb_dispatch_fail(stdio_bus_t *bus, uint32_t entry, const sb_error *error, int worker, uint32_t generation)
{
    sb_router *router = &bus->ctx.router;
    sb_peer *client = sb_router_asker(router, sb_router_request(router, entry));
    sb_text original;
    sb_router_end_take(router, entry, &original);
    sb_deliver_error(bus, client, sb_text_span(&original), error, worker, generation);
    sb_text_free(&original);
}

void sb_dispatch_fail_queued(stdio_bus_t *bus, sb_pool *pool, const sb_error *error)
{
    uint32_t entry;
    while ((entry = sb_router_first(&bus->ctx.router, &pool->waiting, SB_DOWN)) != SB_NONE) {
        sb_dispatch_fail(bus, entry, error, -1, 0);
    }
}

uint32_t sb_dispatch_count_unsent(stdio_bus_t *bus, const sb_peer *peer, const sb_sink *sink)
{
    uint32_t lost = sink->unsent, requests;
    if (lost == 0) return 0;
    requests = sb_router_held_since(&bus->ctx.router, peer, sink->unsent_at);
    /* The request for which a client was closed, since there was no room, is among them without having been queued. */
    lost = lost > requests ? lost - requests : 0;
    bus->more.dropped_frames += lost;
    return lost;
}

void sb_dispatch_fail_held(stdio_bus_t *bus, sb_worker *worker, sb_error *error)
{
    uint32_t entry;
    while ((entry = sb_router_first(&bus->ctx.router, &worker->peer, SB_DOWN)) != SB_NONE) {
        uint32_t at = sb_router_request(&bus->ctx.router, entry)->at;
        /* Both counters wrap; an outbox is far smaller than half their range. */
        error->sent = (int32_t)(worker->sink.written - at) > 0;
        sb_dispatch_fail(bus, entry, error, worker->id, worker->generation);
    }
}

void sb_dispatch_forget_asked(stdio_bus_t *bus, sb_peer *worker)
{
    uint32_t entry;
    while ((entry = sb_router_first(&bus->ctx.router, worker, SB_UP)) != SB_NONE) {
        sb_dispatch_withdraw(bus, entry, false);
    }
}

void sb_dispatch_decline_asked(stdio_bus_t *bus, uint32_t entry)
{
    sb_router *router = &bus->ctx.router;
    sb_request *request = sb_router_request(router, entry);
    sb_worker *worker = SB_CONTAINER(sb_router_asker(router, request), sb_worker, peer);
    sb_meaning meaning = request->meaning;
    sb_text original;
    sb_router_end_take(router, entry, &original);
    sb_dispatch_decline(bus, worker, sb_text_span(&original), meaning);
    sb_text_free(&original);
}

void sb_dispatch_decline_held(stdio_bus_t *bus, sb_peer *client)
{
    sb_router *router = &bus->ctx.router;
    uint32_t entry;
    while ((entry = sb_router_first(router, client, SB_UP)) != SB_NONE) sb_dispatch_decline_asked(bus, entry);
}

void sb_dispatch_decline_answered(stdio_bus_t *bus, sb_peer *client, sb_span id)
{
    uint32_t entry = id.ptr != NULL ? sb_router_answered(&bus->ctx.router, client, id) : SB_NONE;
    if (entry != SB_NONE && !sb_router_request(&bus->ctx.router, entry)->given_up) sb_dispatch_decline_asked(bus, entry);
}

void sb_dispatch_fail_asked(stdio_bus_t *bus, sb_peer *client, const sb_error *error)
{
    sb_router *router = &bus->ctx.router;
    uint32_t entry;
    while ((entry = sb_router_first(router, client, SB_DOWN)) != SB_NONE) {
        /* Its worker may still answer, so it is given up and not ended, which forgets the client's id. */
        sb_span id = sb_text_span(&sb_router_request(router, entry)->id);
        sb_buf copy = {0};
        bool ok = sb_buf_append(&copy, id.ptr, id.len);
        sb_span original = {copy.data, copy.len};
        sb_dispatch_give_up(bus, entry);
        if (ok) sb_deliver_error(bus, client, original, error, -1, 0);
        sb_buf_free(&copy);
    }
}

void sb_dispatch_give_up_asked(stdio_bus_t *bus, sb_peer *client)
{
    uint32_t entry;
    while ((entry = sb_router_first(&bus->ctx.router, client, SB_DOWN)) != SB_NONE) {
        sb_dispatch_give_up(bus, entry);
    }
}
