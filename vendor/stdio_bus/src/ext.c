/* ext.c - the entry points of stdio_bus_ext.h. */
#include <stdio.h>

#include "bus.h"

int stdio_bus_wakeup(stdio_bus_t *bus)
{
    if (bus == NULL) return STDIO_BUS_ERR_INVALID;
    if (!bus->whole) return STDIO_BUS_ERR_STATE;
    sb_loop_wake(&bus->ctx.loop);
    return STDIO_BUS_OK;
}

int stdio_bus_stop_within(stdio_bus_t *bus, uint32_t timeout_ms)
{
    return bus == NULL ? STDIO_BUS_ERR_INVALID : sb_bus_stop(bus, timeout_ms);
}

int stdio_bus_drain(stdio_bus_t *bus, uint32_t timeout_ms, uint32_t grace_ms)
{
    uint64_t limit_ms = timeout_ms;
    if (bus == NULL) return STDIO_BUS_ERR_INVALID;
    if (bus->state != STDIO_BUS_STATE_RUNNING) return STDIO_BUS_ERR_STATE;
    if (timeout_ms == STDIO_BUS_DRAIN_CONFIGURED) limit_ms = (uint64_t)bus->ctx.limits.drain_timeout_sec * 1000u;
    sb_bus_enter(bus);
    bus->draining = true;
    bus->grace_ms = grace_ms;
    /* Inside a callback a listener may be at work: they are closed when the next step ends. */
    if (!sb_bus_is_nested(bus)) sb_clients_close_listeners(bus);
    sb_timer_set(&bus->ctx.loop.timers, &bus->timer, sb_clock_now(&bus->ctx.loop.clock) + limit_ms);
    /* With nothing pending the next step has to notice. */
    sb_loop_wake(&bus->ctx.loop);
    sb_bus_leave(bus);
    return STDIO_BUS_OK;
}

int stdio_bus_check(stdio_bus_t *bus)
{
    int status = STDIO_BUS_OK;
    if (bus == NULL) return STDIO_BUS_ERR_INVALID;
    sb_bus_enter(bus);
    for (size_t i = 0; status == STDIO_BUS_OK && i < bus->pool_count; i++) {
        status = sb_check_program(bus, "check", &bus->pools[i]->config);
    }
    sb_bus_leave(bus);
    return status;
}

int stdio_bus_reload(stdio_bus_t *bus, const char *config_path, const char *config_json)
{
    sb_config config;
    char error[SB_CONFIG_ERROR_MAX];
    int status;
    if (bus == NULL || (config_path == NULL && config_json == NULL)) return STDIO_BUS_ERR_INVALID;
    if (sb_bus_in_callback(bus) || bus->state != STDIO_BUS_STATE_RUNNING || bus->draining) return STDIO_BUS_ERR_STATE;
    sb_bus_enter(bus);
    status = config_path != NULL ? sb_config_load(&config, config_path, error)
                                 : sb_config_parse(&config, sb_span_of(config_json), error);
    if (status == STDIO_BUS_OK) {
        status = sb_reload(bus, &config);
    } else {
        sb_report_error(bus, status, "reload: %s", error);
    }
    sb_config_free(&config);
    sb_bus_leave(bus);
    return status;
}

/* ---- messages ------------------------------------------------------------------- */

int stdio_bus_submit(stdio_bus_t *bus, const char *msg, size_t len, const stdio_bus_submit_options_t *options)
{
    sb_sender sender = {0};
    sb_span frame = {msg, len};
    if (bus == NULL || msg == NULL) return STDIO_BUS_ERR_INVALID;
    if (options != NULL && options->size < sizeof *options) return STDIO_BUS_ERR_INVALID;
    sender.peer = &bus->host;
    if (options != NULL) {
        sender.answer_errors = options->flags & STDIO_BUS_SUBMIT_ANSWER_ERRORS;
        sender.session.ptr = options->session;
        sender.session.len = options->session_len;
        sender.pool.ptr = options->pool;
        sender.pool.len = options->pool_len;
    }
    return sb_bus_submit(bus, &sender, frame);
}

int stdio_bus_cancel(stdio_bus_t *bus, const char *id, size_t id_len)
{
    sb_span token = {id, id_len};
    uint32_t request;
    if (bus == NULL || id == NULL) return STDIO_BUS_ERR_INVALID;
    if (!bus->whole) return STDIO_BUS_ENOTFOUND;
    request = sb_router_asked(&bus->ctx.router, &bus->host, token);
    if (request == SB_NONE) return STDIO_BUS_ENOTFOUND;
    sb_bus_enter(bus);
    sb_bus_tell_time(bus);
    sb_dispatch_give_up(bus, request);
    /* It may be the last one that a drain has waited for. */
    if (bus->draining) sb_loop_wake(&bus->ctx.loop);
    sb_bus_leave(bus);
    return STDIO_BUS_OK;
}

static bool end_session_in(stdio_bus_t *bus, const sb_pool *pool, sb_span name)
{
    uint32_t session = sb_router_session(&bus->ctx.router, pool->key, name, false);
    if (session == SB_NONE) return false;
    sb_session_end(&bus->ctx.router, session);
    return true;
}

int stdio_bus_end_session(stdio_bus_t *bus, const char *pool, const char *session, size_t session_len)
{
    sb_span name = {session, session_len};
    const sb_pool *only = NULL;
    int status = STDIO_BUS_ENOTFOUND;
    if (bus == NULL || session == NULL) return STDIO_BUS_ERR_INVALID;
    if (pool != NULL) {
        only = sb_pool_named(bus, sb_span_of(pool));
        if (only == NULL) return STDIO_BUS_ENOTFOUND;
    }
    for (size_t i = 0; i < bus->pool_count; i++) {
        if (only != NULL && only != bus->pools[i]) continue;
        if (end_session_in(bus, bus->pools[i], name)) status = STDIO_BUS_OK;
    }
    for (sb_pool *own = bus->private_pools; own != NULL; own = own->next) {
        if (only != NULL && only != own->model) continue;
        if (end_session_in(bus, own, name)) status = STDIO_BUS_OK;
    }
    return status;
}

/* ---- listeners and clients --------------------------------------------------------- */

static bool is_listenable(const stdio_bus_listen_options_t *options)
{
    if (options->framing > STDIO_BUS_FRAMING_LENGTH || (options->uid_count > 0 && options->uids == NULL)) return false;
    /* Half a token is a mistake, not a listener for everybody. */
    if ((options->token == NULL) != (options->token_len == 0)) return false;
    switch (options->mode) {
    case STDIO_BUS_LISTEN_TCP: return options->tcp_port <= UINT16_MAX;
    case STDIO_BUS_LISTEN_UNIX: return options->unix_path != NULL;
    case STDIO_BUS_LISTEN_FD: return options->fd >= 0;
    default: return false;
    }
}

int stdio_bus_listen(stdio_bus_t *bus, const stdio_bus_listen_options_t *options)
{
    int status;
    if (bus == NULL || options == NULL || options->size < sizeof *options || !is_listenable(options)) {
        return STDIO_BUS_ERR_INVALID;
    }
    if (!bus->whole || bus->state >= STDIO_BUS_STATE_STOPPING || bus->draining) return STDIO_BUS_ERR_STATE;
    sb_bus_enter(bus);
    status = sb_clients_listen(bus, options);
    sb_bus_leave(bus);
    return status;
}

int stdio_bus_listener_count(const stdio_bus_t *bus)
{
    return bus == NULL ? STDIO_BUS_ERR_INVALID : (int)bus->listener_count;
}

int stdio_bus_listener_address(const stdio_bus_t *bus, int listener, char *out, size_t cap)
{
    size_t len;
    if (bus == NULL || out == NULL) return STDIO_BUS_ERR_INVALID;
    if (listener < 0 || (size_t)listener >= bus->listener_count) return STDIO_BUS_ENOTFOUND;
    len = strlen(bus->listeners[listener]->address);
    if (len >= cap) return STDIO_BUS_EFULL;
    memcpy(out, bus->listeners[listener]->address, len + 1);
    return (int)len;
}

int stdio_bus_adopt_client(stdio_bus_t *bus, int fd_from_client, int fd_to_client)
{
    return stdio_bus_adopt_client_with(bus, fd_from_client, fd_to_client, NULL);
}

int stdio_bus_adopt_client_with(stdio_bus_t *bus, int fd_from_client, int fd_to_client,
                                const stdio_bus_client_options_t *options)
{
    sb_conn_plan plan = {0};
    uint32_t framing = options != NULL ? options->framing : STDIO_BUS_FRAMING_CONFIGURED;
    int status;
    if (bus == NULL || fd_from_client < 0 || fd_to_client < 0 || framing > STDIO_BUS_FRAMING_LENGTH ||
        (options != NULL && options->size < sizeof *options)) {
        return STDIO_BUS_ERR_INVALID;
    }
    if (!bus->whole || bus->state >= STDIO_BUS_STATE_STOPPING || bus->draining) return STDIO_BUS_ERR_STATE;
    plan.fd_from = fd_from_client;
    plan.fd_to = fd_to_client;
    plan.pair = true;
    plan.length_framed =
        framing == STDIO_BUS_FRAMING_LENGTH || (framing == 0 && bus->config.framing == SB_FRAMING_LENGTH);
    if (options != NULL && options->pool != NULL) {
        sb_pool *pool = sb_pool_named(bus, sb_span_of(options->pool));
        if (pool == NULL) return STDIO_BUS_ENOTFOUND;
        plan.pool = pool;
    }
    sb_bus_enter(bus);
    status = sb_clients_adopt(bus, &plan);
    sb_bus_leave(bus);
    return status;
}

/* ---- introspection ------------------------------------------------------------------- */

int stdio_bus_worker_slots(const stdio_bus_t *bus)
{
    return bus == NULL ? STDIO_BUS_ERR_INVALID : (int)bus->worker_count;
}

int stdio_bus_worker_info(const stdio_bus_t *bus, int id, stdio_bus_worker_info_t *info)
{
    const sb_worker *worker;
    if (bus == NULL || info == NULL || info->size < sizeof *info) return STDIO_BUS_ERR_INVALID;
    if (id < 0 || (size_t)id >= bus->worker_count) return STDIO_BUS_ENOTFOUND;
    worker = bus->workers[id];
    info->worker = id;
    info->pid = worker->embedded ? -1 : (int32_t)worker->pid;
    info->state = (uint32_t)worker->state;
    info->generation = worker->generation;
    info->restarts = worker->restarts.total;
    info->pending = worker->peer.pending;
    info->reserved = 0;
    info->uptime_ms = 0;
    if (sb_worker_runs(worker)) info->uptime_ms = sb_clock_now(&bus->ctx.loop.clock) - worker->started_at;
    info->pool = worker->pool != NULL ? worker->pool->config.id : "";
    return STDIO_BUS_OK;
}

int stdio_bus_worker_stderr(const stdio_bus_t *bus, int id, char *out, size_t cap)
{
    if (bus == NULL || out == NULL || cap == 0) return STDIO_BUS_ERR_INVALID;
    if (id < 0 || (size_t)id >= bus->worker_count) return STDIO_BUS_ENOTFOUND;
    return (int)sb_diag_tail(&bus->workers[id]->diag, false, out, cap);
}

int stdio_bus_pool_count(const stdio_bus_t *bus)
{
    return bus == NULL ? STDIO_BUS_ERR_INVALID : (int)bus->pool_count;
}

static void add_worker(stdio_bus_pool_info_t *info, const sb_worker *worker)
{
    info->workers++;
    info->ready += sb_worker_takes(worker) ? 1 : 0;
    info->pending += worker->peer.pending;
    info->sessions += worker->peer.session_count;
    info->outbox_bytes += worker->sink.outbox.bytes;
}

static void add_queue(stdio_bus_pool_info_t *info, const sb_pool *pool)
{
    info->queued += pool->waiting.pending;
    info->queued_bytes += pool->queued_bytes;
}

int stdio_bus_pool_info(const stdio_bus_t *bus, int number, stdio_bus_pool_info_t *info)
{
    const sb_pool *pool;
    uint32_t size;
    if (bus == NULL || info == NULL || info->size < sizeof *info) return STDIO_BUS_ERR_INVALID;
    if (number < 0 || (size_t)number >= bus->pool_count) return STDIO_BUS_ENOTFOUND;
    size = info->size;
    memset(info, 0, sizeof *info);
    info->size = size;
    pool = bus->pools[number];
    info->id = pool->config.id;
    info->requests = pool->requests;
    info->restarts = pool->restarts;
    info->answered = pool->latency.count;
    info->p50_us = sb_latency_quantile(&pool->latency, 50);
    info->p90_us = sb_latency_quantile(&pool->latency, 90);
    info->p99_us = sb_latency_quantile(&pool->latency, 99);
    info->max_us = pool->latency.max;
    add_queue(info, pool);
    for (const sb_pool *own = bus->private_pools; own != NULL; own = own->next) {
        if (own->model == pool) add_queue(info, own);
    }
    for (size_t i = 0; i < bus->worker_count; i++) {
        const sb_pool *of = bus->workers[i]->pool;
        /* Of retired ones, too. */
        if (of == pool || (of != NULL && of->model == pool)) add_worker(info, bus->workers[i]);
    }
    return STDIO_BUS_OK;
}

int stdio_bus_ext_stats(const stdio_bus_t *bus, stdio_bus_ext_stats_t *stats)
{
    uint32_t size;
    if (bus == NULL || stats == NULL || stats->size < sizeof *stats) return STDIO_BUS_ERR_INVALID;
    size = stats->size;
    *stats = bus->more;
    stats->size = size;
    stats->outbox_bytes = bus->ctx.outbox_bytes;
    stats->tombstones = 0;
    for (size_t i = 0; i < bus->worker_count; i++) stats->tombstones += bus->workers[i]->peer.tombs.count;
    return STDIO_BUS_OK;
}
