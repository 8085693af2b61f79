#include "bus.h"
#include "launch.h"

/* How long a worker may take to end once it has nothing left to do. */
#define RETIRE_GRACE_MS 5000u

int sb_check_program(stdio_bus_t *bus, const char *what, const sb_pool_config *pool)
{
    const char *step;
    int error = pool->instances > 0 ? sb_launch_check(pool, &step) : 0;
    if (error == 0) return STDIO_BUS_OK;
    sb_report_launch(bus, what, pool, step, error);
    return STDIO_BUS_ERR_WORKER;
}

/* Everything the new configuration asks for must be possible before anything is changed. */
static int check(stdio_bus_t *bus, const sb_config *config)
{
    int status = STDIO_BUS_OK;
    for (size_t i = 0; status == STDIO_BUS_OK && i < config->pool_count; i++) {
        status = sb_check_program(bus, "reload", &config->pools[i]);
    }
    return status;
}

/* The running pool that this configuration leaves as it is, or NULL. */
static sb_pool *unchanged(stdio_bus_t *bus, const sb_pool_config *config)
{
    sb_pool *pool = sb_pool_named(bus, sb_span_of(config->id));
    return pool != NULL && sb_pool_config_equal(&pool->config, config) ? pool : NULL;
}

/* A new pool; clients of the one it replaces don't have to introduce themselves again. */
static sb_pool *successor_of(stdio_bus_t *bus, sb_pool_config *config)
{
    const sb_pool *before = sb_pool_named(bus, sb_span_of(config->id));
    sb_pool *pool = sb_pool_new(bus, config);
    if (pool != NULL && before != NULL) sb_handshake_inherit(pool, before);
    return pool;
}

/* The pools of the new configuration: kept ones and new ones. NULL without memory, with nothing left behind. */
static sb_pool **make_pools(stdio_bus_t *bus, sb_config *config)
{
    sb_pool **pools = sb_calloc(config->pool_count, sizeof(sb_pool *));
    bool ok = pools != NULL;
    for (size_t i = 0; ok && i < config->pool_count; i++) {
        pools[i] = unchanged(bus, &config->pools[i]);
        if (pools[i] == NULL) pools[i] = successor_of(bus, &config->pools[i]);
        ok = pools[i] != NULL;
    }
    if (ok) return pools;
    for (size_t i = 0; pools != NULL && i < config->pool_count; i++) {
        bool old = false;
        for (size_t n = 0; n < bus->pool_count; n++) old = old || bus->pools[n] == pools[i];
        if (pools[i] != NULL && !old) sb_pool_free(bus, pools[i]);
    }
    sb_free(pools);
    return NULL;
}

/* Idle sessions bind anew with their next message; the others stay known until their worker has answered. */
static void end_idle_sessions(stdio_bus_t *bus, sb_worker *worker)
{
    sb_router *router = &bus->ctx.router;
    uint32_t session = worker->peer.sessions;
    if (!sb_worker_runs(worker)) return;
    while (session != SB_NONE) {
        uint32_t next = sb_router_session_at(router, session)->next_of_worker;
        if (sb_router_session_at(router, session)->requests == SB_NONE) sb_session_end(router, session);
        session = next;
    }
}

void sb_pool_retire(stdio_bus_t *bus, sb_pool *pool)
{
    uint64_t now = sb_clock_now(&bus->ctx.loop.clock);
    pool->retired = true;
    pool->end_due = now + (uint64_t)bus->ctx.limits.drain_timeout_sec * 1000u;
    pool->next = bus->retired;
    bus->retired = pool;
    for (sb_worker *worker = pool->workers; worker != NULL; worker = worker->next_of_pool) {
        end_idle_sessions(bus, worker);
        sb_balance_remove(&worker->peer.node);
        worker->retiring = true;
    }
    sb_timer_set(&bus->ctx.loop.timers, &bus->retire_timer, now);
}

/* Listeners and clients of a replaced pool go on with the one of the same name. */
static sb_pool *successor(stdio_bus_t *bus, sb_pool *pool)
{
    return pool != NULL && pool->retired ? sb_pool_named(bus, sb_span_of(pool->config.id)) : pool;
}

static void move_clients(stdio_bus_t *bus)
{
    for (size_t i = 0; i < bus->listener_count; i++) {
        bus->listeners[i]->pool = successor(bus, bus->listeners[i]->pool);
    }
    for (sb_conn *conn = bus->clients; conn != NULL; conn = conn->next) conn->pool = successor(bus, conn->pool);
}

static void apply_limits(stdio_bus_t *bus, const sb_limits *limits)
{
    bus->ctx.limits = *limits;
    bus->ctx.router.max_sessions = limits->max_sessions;
    /* Set anew when this call ends. */
    sb_timer_cancel(&bus->ctx.loop.timers, &bus->idle_timer);
    for (sb_conn *conn = bus->clients; conn != NULL; conn = conn->next) {
        if (conn->listener == NULL) conn->source.framer.max = limits->max_input_buffer;
    }
    for (size_t i = 0; i < bus->worker_count; i++) bus->workers[i]->source.framer.max = limits->max_input_buffer;
}

static void start_new(stdio_bus_t *bus)
{
    for (size_t i = 0; i < bus->pool_count; i++) {
        if (!bus->pools[i]->started) sb_pool_start_workers(bus, bus->pools[i]);
    }
}

int sb_reload(stdio_bus_t *bus, sb_config *config)
{
    sb_pool **before = bus->pools, **pools;
    size_t before_count = bus->pool_count;
    int status = check(bus, config);
    if (status != STDIO_BUS_OK) return status;
    pools = make_pools(bus, config);
    if (pools == NULL) return STDIO_BUS_ERR_BUFFER;
    bus->pools = pools;
    bus->pool_count = config->pool_count;
    bus->default_pool = config->default_pool < config->pool_count ? pools[config->default_pool] : NULL;
    bus->config.framing = config->framing;
    for (size_t i = 0; i < before_count; i++) {
        bool kept = false;
        for (size_t n = 0; n < bus->pool_count; n++) kept = kept || pools[n] == before[i];
        if (!kept) sb_pool_retire(bus, before[i]);
    }
    sb_free(before);
    move_clients(bus);
    apply_limits(bus, &config->limits);
    start_new(bus);
    /* What waited for a worker of the old pool waits for one of the new. */
    for (sb_pool *pool = bus->retired; pool != NULL; pool = pool->next) {
        sb_pool *to = successor(bus, pool);
        if (pool->model != NULL) continue;
        if (pool->config.exclusive) {
            sb_exclusive_replace(bus, pool, to);
        } else if (to != NULL) {
            sb_pool_flush_queue(bus, pool, to);
        } else {
            sb_pool_fail_queue(bus, pool);
        }
    }
    sb_log(&bus->ctx, SB_LOG_INFO, "reloaded: %zu pools", bus->pool_count);
    return STDIO_BUS_OK;
}

static void end_worker(stdio_bus_t *bus, sb_worker *worker, uint64_t timeout_ms)
{
    if (sb_worker_runs(worker)) {
        if (worker->ladder == SB_LADDER_NONE) sb_worker_stop(worker, timeout_ms);
        return;
    }
    /* It was waiting to be started again, or had failed. */
    sb_worker_stop(worker, 0);
    sb_pool_release(bus, worker);
}

static void end_workers(stdio_bus_t *bus, sb_pool *pool)
{
    for (sb_worker *worker = pool->workers, *next; worker != NULL; worker = next) {
        next = worker->next_of_pool;
        if (worker->peer.pending == 0 || pool->end_due <= bus->ctx.loop.now || !sb_worker_runs(worker)) {
            end_worker(bus, worker, RETIRE_GRACE_MS);
        }
    }
}

void sb_reload_progress(stdio_bus_t *bus)
{
    for (sb_pool *pool = bus->retired; pool != NULL; pool = pool->next) end_workers(bus, pool);
    for (sb_pool **at = &bus->retired; *at != NULL;) {
        sb_pool *pool = *at;
        if (pool->workers == NULL && pool->copies == 0) {
            *at = pool->next;
            sb_router_end_sessions(&bus->ctx.router, pool->key);
            sb_pool_free(bus, pool);
        } else {
            at = &pool->next;
        }
    }
}

void sb_reload_on_timer(sb_timer *timer)
{
    stdio_bus_t *bus = SB_CONTAINER(timer, stdio_bus_t, retire_timer);
    uint64_t due = UINT64_MAX;
    /* The step that called this goes on to sb_reload_progress. */
    for (const sb_pool *pool = bus->retired; pool != NULL; pool = pool->next) {
        if (pool->end_due > bus->ctx.loop.now && pool->end_due < due) due = pool->end_due;
    }
    if (due != UINT64_MAX) sb_timer_set(&bus->ctx.loop.timers, timer, due);
}
