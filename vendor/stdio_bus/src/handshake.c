/*
 * handshake.c - one handshake for a pool, whoever its clients are: MCP
 * [Lifecycle: Initialization], ACP [Initialization]. Each generation of each
 * worker gets the same initialize, before it takes anything else; clients are
 * answered with what the first worker has answered.
 */
#include "dispatch.h"

static void on_timer(sb_timer *timer);

/* Takes a copy. False without memory. */
static bool set_params(sb_handshake *hello, sb_span params)
{
    hello->params.len = 0;
    if (!sb_buf_append(&hello->params, params.ptr, params.len)) return false;
    hello->era = SB_ERA_HANDSHAKE;
    hello->round++;
    return true;
}

bool sb_handshake_init(stdio_bus_t *bus, sb_pool *pool)
{
    sb_handshake *hello = &pool->hello;
    sb_span params = sb_span_of(pool->config.initialize);
    if (!sb_timer_register(&bus->ctx.loop.timers, &hello->timer, on_timer)) return false;
    hello->asker = SB_NONE;
    hello->protocol = pool->config.protocol;
    if (params.ptr == NULL) return true;
    if (hello->protocol == SB_PROTOCOL_AUTO) hello->protocol = sb_protocol_of_initialize(params);
    if (sb_issues_ids(pool)) return set_params(hello, params);
    sb_log(&bus->ctx, SB_LOG_WARN, "pool %s: its initialize is of no protocol that is known, and not used", pool->config.id);
    return true;
}

void sb_handshake_free(stdio_bus_t *bus, sb_pool *pool)
{
    sb_timer_unregister(&bus->ctx.loop.timers, &pool->hello.timer);
    sb_buf_free(&pool->hello.params);
    sb_buf_free(&pool->hello.result);
}

void sb_handshake_inherit(sb_pool *pool, const sb_pool *from)
{
    sb_span params = {from->hello.params.data, from->hello.params.len};
    bool same = pool->config.protocol == SB_PROTOCOL_AUTO || pool->config.protocol == from->hello.protocol;
    if (pool->hello.params.len > 0 || !same || !sb_issues_ids(from)) return;
    /* Without memory its clients have to initialize again. */
    if (params.len > 0 && !set_params(&pool->hello, params)) return;
    pool->hello.protocol = from->hello.protocol;
    pool->hello.era = from->hello.era;
}

/* ---- towards workers ------------------------------------------------------------------ */

static void look_at(stdio_bus_t *bus, sb_handshake *hello, uint64_t due)
{
    if (sb_timer_is_set(&hello->timer) && hello->timer.due <= due) return;
    sb_timer_set(&bus->ctx.loop.timers, &hello->timer, due);
}

static const char UNANSWERED[] = "has not answered initialize";

/* The worker is of no use; it is ended once nobody walks over its frames. */
static void fail(stdio_bus_t *bus, sb_worker *worker, const char *why)
{
    sb_log(&bus->ctx, SB_LOG_ERROR, "worker %d (%s) %s", worker->id, worker->config->id, why);
    worker->pool->hello.trouble = why;
    worker->hello_due = 0;
    look_at(bus, &worker->pool->hello, 0);
}

static void on_timer(sb_timer *timer)
{
    sb_handshake *hello = SB_CONTAINER(timer, sb_handshake, timer);
    sb_pool *pool = SB_CONTAINER(hello, sb_pool, hello);
    stdio_bus_t *bus = pool->bus;
    uint64_t next = UINT64_MAX;
    for (sb_worker *worker = pool->workers, *after; worker != NULL; worker = after) {
        /* One that is ended here may leave the pool. */
        after = worker->next_of_pool;
        if (worker->hello == 0) continue;
        if (worker->hello_due > bus->ctx.loop.now) {
            if (worker->hello_due < next) next = worker->hello_due;
            continue;
        }
        if (worker->hello_due > 0) {
            sb_log(&bus->ctx, SB_LOG_ERROR, "worker %d (%s) %s for %u s", worker->id, worker->config->id, UNANSWERED,
                   pool->config.init_timeout_sec);
            if (hello->trouble == NULL) hello->trouble = UNANSWERED;
        }
        worker->hello = 0;
        sb_worker_leave(worker);
    }
    /* What was told above may have set it, too. */
    if (next != UINT64_MAX) look_at(bus, hello, next);
}

static void greet(stdio_bus_t *bus, sb_worker *worker)
{
    sb_handshake *hello = &worker->pool->hello;
    char wire[SB_WIRE_MAX];
    sb_span id = sb_router_issue(&bus->ctx.router, &worker->peer, wire);
    sb_span params = {hello->params.data, hello->params.len};
    sb_buf text = {0};
    uint64_t now = sb_clock_now(&bus->ctx.loop.clock);
    worker->hello = worker->peer.issued;
    worker->hello_at = worker->sink.queued;
    worker->hello_round = hello->round;
    worker->hello_due = now + (uint64_t)worker->config->init_timeout_sec * 1000u;
    look_at(bus, hello, worker->hello_due);
    if (!sb_protocol_put_initialize(&text, id, params) || !sb_dispatch_put(bus, worker, &text)) {
        fail(bus, worker, "had no memory for initialize");
    }
    sb_buf_free(&text);
}

bool sb_handshake_begin(stdio_bus_t *bus, sb_worker *worker)
{
    if (worker->pool->hello.params.len == 0 || !sb_issues_ids(worker->pool)) return false;
    greet(bus, worker);
    return true;
}

/* All that run get the initialize before anything else that is still to come. */
static void greet_all(stdio_bus_t *bus, sb_pool *pool)
{
    for (sb_worker *worker = pool->workers; worker != NULL; worker = worker->next_of_pool) {
        if (!sb_worker_takes(worker)) continue;
        sb_balance_remove(&worker->peer.node);
        sb_worker_unready(worker);
        greet(bus, worker);
    }
}

/* ---- what workers answer ------------------------------------------------------------------ */

static void accepted(stdio_bus_t *bus, sb_worker *worker, sb_span result)
{
    sb_handshake *hello = &worker->pool->hello;
    sb_buf text = {0};
    bool ok = true;
    if (hello->result.len == 0) ok = sb_buf_append(&hello->result, result.ptr, result.len);
    /* One that is ending has answered for the others. */
    if (ok && worker->in.fd < 0) return;
    if (hello->protocol == SB_PROTOCOL_MCP) {
        ok = ok && sb_protocol_put_initialized(&text) && sb_dispatch_put(bus, worker, &text);
    }
    sb_buf_free(&text);
    if (ok) {
        worker->hello = 0;
        hello->trouble = NULL;
        sb_pool_worker_ready(bus, worker);
    } else {
        fail(bus, worker, "had no memory for initialize");
    }
}

/* It has answered what is no longer asked: there may be another initialize by now. */
static void go_on(stdio_bus_t *bus, sb_worker *worker)
{
    worker->hello = 0;
    if (!sb_handshake_begin(bus, worker)) sb_pool_worker_ready(bus, worker);
}

/* The client whose params these were is told, and the next one may try with its own. */
static void refused(stdio_bus_t *bus, sb_worker *worker, const sb_envelope *envelope, sb_span frame)
{
    sb_handshake *hello = &worker->pool->hello;
    sb_router *router = &bus->ctx.router;
    uint32_t entry = hello->asker;
    hello->params.len = 0;
    /* A client that was refused has not shown what is spoken here either. */
    hello->protocol = worker->pool->config.protocol;
    hello->era = SB_ERA_UNKNOWN;
    hello->round++;
    hello->asker = SB_NONE;
    if (entry != SB_NONE && sb_router_request(router, entry)->serial == hello->serial) {
        sb_peer *client = sb_router_asker(router, sb_router_request(router, entry));
        sb_text original;
        sb_router_end_take(router, entry, &original);
        sb_dispatch_answer(bus, client, worker, envelope, frame, sb_text_span(&original));
        sb_text_free(&original);
    }
    go_on(bus, worker);
}

bool sb_handshake_answered(stdio_bus_t *bus, sb_worker *worker, const sb_envelope *envelope, sb_span frame)
{
    const sb_handshake *hello = &worker->pool->hello;
    sb_span id = sb_member_value(frame, envelope->id), result = sb_member_value(frame, envelope->result);
    bool is_current = worker->hello_round == hello->round, is_result = envelope->error.end == 0;
    if (sb_router_number(id) != worker->hello) return false;
    if (is_current && is_result) {
        accepted(bus, worker, result);
    } else if (is_result) {
        fail(bus, worker, "has accepted what another worker of the pool had refused");
    } else if (!is_current) {
        go_on(bus, worker);
    } else if (hello->result.len == 0 && worker->config->initialize == NULL) {
        refused(bus, worker, envelope, frame);
    } else {
        fail(bus, worker, "refused initialize");
    }
    return true;
}

void sb_handshake_garbage(sb_worker *worker)
{
    if (worker->hello != 0) worker->pool->hello.trouble = "writes what is no JSON-RPC to stdout, and has not answered initialize";
}

const char *sb_handshake_trouble(const sb_pool *pool)
{
    if (pool->hello.trouble != NULL) return pool->hello.trouble;
    for (const sb_worker *worker = pool->workers; worker != NULL; worker = worker->next_of_pool) {
        if (worker->hello != 0) return UNANSWERED;
    }
    return NULL;
}

bool sb_handshake_unusable(stdio_bus_t *bus, sb_worker *worker, sb_span id)
{
    if (worker->hello == 0 || sb_router_number(id) != worker->hello) return false;
    fail(bus, worker, "has answered initialize with something that can't be used");
    return true;
}

/* ---- what clients ask ---------------------------------------------------------------------- */

int sb_handshake_refuse(stdio_bus_t *bus, const sb_message *message, const char *reason, const char *text)
{
    sb_error error = sb_error_of(SB_RPC_METHOD_NOT_FOUND, reason, text);
    error.pool = message->pool->config.id;
    error.sent = 0;
    return sb_refuse_message(bus, message, &error, STDIO_BUS_ERR_ROUTING);
}

static bool is_of_other_protocol(const sb_handshake *hello, sb_span params)
{
    sb_protocol protocol = sb_protocol_of_initialize(params);
    return protocol != SB_PROTOCOL_AUTO && protocol != hello->protocol;
}

int sb_handshake_from_client(stdio_bus_t *bus, const sb_message *message)
{
    sb_handshake *hello = &message->pool->hello;
    sb_span params = sb_member_value(message->frame, message->envelope->params);
    sb_span id = sb_member_value(message->frame, message->envelope->id);
    sb_span result = {hello->result.data, hello->result.len};
    bool first = hello->params.len == 0;
    sb_error error = sb_error_of(SB_RPC_OVERLOADED, "overloaded", "Out of memory");
    uint32_t request = SB_NONE;
    int status;
    if (hello->era == SB_ERA_STATELESS) {
        return sb_handshake_refuse(bus, message, "wrong_era",
                                   "The pool's workers speak MCP without a handshake (2026-07-28)");
    }
    if (is_of_other_protocol(hello, params)) {
        return sb_handshake_refuse(bus, message, "wrong_protocol",
                                   hello->protocol == SB_PROTOCOL_MCP ? "The pool's workers speak MCP"
                                                                      : "The pool's workers speak ACP");
    }
    if (result.len > 0) {
        sb_deliver_result(bus, message->sender->peer, id, result);
        return STDIO_BUS_OK;
    }
    if (params.ptr == NULL) params = sb_span_of("{}");
    if (first) {
        if (!set_params(hello, params)) return sb_refuse_message(bus, message, &error, STDIO_BUS_EFULL);
        greet_all(bus, message->pool);
    }
    status = sb_route_later(bus, message, SB_NONE, &request);
    if (first && request != SB_NONE) {
        hello->asker = request;
        hello->serial = sb_router_request(&bus->ctx.router, request)->serial;
    }
    return status;
}
