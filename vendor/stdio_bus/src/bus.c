#include "bus.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>
#ifdef __APPLE__
#include <sys/random.h>
#endif

/* ---- create and destroy ------------------------------------------------------------- */

static void on_deadline(sb_timer *timer);
static void on_idle_timer(sb_timer *timer);

static uint64_t random_seed(void)
{
    uint64_t seed = 0;
    if (getentropy(&seed, sizeof seed) != 0) seed = (uint64_t)getpid() * 0x9e3779b97f4a7c15u;
    return seed;
}

static char *copy_string(const char *text)
{
    return text == NULL ? NULL : sb_strndup(text, strlen(text));
}

static bool copy_listener(stdio_bus_t *bus, const stdio_bus_listener_config_t *listener)
{
    bus->first_listener.size = sizeof bus->first_listener;
    bus->first_listener.mode = (uint32_t)listener->mode;
    bus->first_listener.tcp_port = listener->tcp_port;
    bus->first_listener.tcp_host = bus->first_host = copy_string(listener->tcp_host);
    bus->first_listener.unix_path = bus->first_path = copy_string(listener->unix_path);
    return (listener->tcp_host == NULL) == (bus->first_host == NULL) &&
           (listener->unix_path == NULL) == (bus->first_path == NULL);
}

static void copy_options(stdio_bus_t *bus, const stdio_bus_options_t *options, const stdio_bus_ext_options_t *ext)
{
    bus->options = *options;
    bus->options.config_path = bus->options.config_json = NULL;
    if (ext != NULL && ext->size >= sizeof *ext) bus->ext = *ext;
    bus->ctx.hooks = sb_bus_hooks;
    bus->ctx.log_level = options->log_level;
    bus->ctx.parent_death_signal = bus->ext.flags & STDIO_BUS_CREATE_PARENT_DEATH_SIGNAL;
    bus->ctx.stderr_inherit = bus->ext.flags & STDIO_BUS_CREATE_STDERR_INHERIT;
    bus->no_host = bus->ext.flags & STDIO_BUS_CREATE_NO_HOST;
}

static int read_config(stdio_bus_t *bus, const stdio_bus_options_t *options)
{
    char error[SB_CONFIG_ERROR_MAX] = "config: neither config_path nor config_json is set";
    int status = STDIO_BUS_ERR_CONFIG;
    if (options->config_path != NULL) {
        status = sb_config_load(&bus->config, options->config_path, error);
    } else if (options->config_json != NULL) {
        status = sb_config_parse(&bus->config, sb_span_of(options->config_json), error);
    }
    if (status != STDIO_BUS_OK) sb_report_error(bus, status, "%s", error);
    for (size_t i = 0; i < bus->config.warning_count; i++) {
        sb_log(&bus->ctx, SB_LOG_WARN, "%s", bus->config.warnings[i]);
    }
    return status;
}

static bool check_options(stdio_bus_t *bus, const stdio_bus_options_t *options, const stdio_bus_ext_options_t *ext)
{
    const stdio_bus_listener_config_t *listener = &options->listener;
    if (ext != NULL && ext->size < sizeof *ext) {
        sb_report_error(bus, STDIO_BUS_ERR_INVALID, "stdio_bus_ext_options_t: size is not set");
    } else if (options->on_message == NULL && bus->ext.on_frame == NULL) {
        sb_report_error(bus, STDIO_BUS_ERR_INVALID, "on_message is required");
    } else if (listener->mode > STDIO_BUS_LISTEN_UNIX) {
        sb_report_error(bus, STDIO_BUS_ERR_INVALID, "listener.mode is not one of 0, 1, 2");
    } else if (listener->mode == STDIO_BUS_LISTEN_UNIX && listener->unix_path == NULL) {
        sb_report_error(bus, STDIO_BUS_ERR_INVALID, "listener.unix_path is required");
    } else {
        return true;
    }
    return false;
}

/* What create does after the structure itself. False, after on_error, on failure; destroy cleans up. */
static bool build(stdio_bus_t *bus, const stdio_bus_options_t *options, const stdio_bus_ext_options_t *ext)
{
    sb_ctx *ctx = &bus->ctx;
    int error;
    if (!check_options(bus, options, ext) || read_config(bus, options) != STDIO_BUS_OK) return false;
    ctx->limits = bus->config.limits;
    sb_router_init(&ctx->router, random_seed(), ctx->limits.max_sessions);
    sb_peer_init(&ctx->router, &bus->host, false);
    error = sb_loop_init(&ctx->loop, sb_clock_system(), bus->ext.flags & STDIO_BUS_CREATE_POLL);
    if (error != 0) {
        sb_report_error(bus, STDIO_BUS_ERR, "cannot open the event loop: %s", strerror(error));
        return false;
    }
    /* One byte more, for the NUL behind a frame that ends with the buffer. */
    ctx->scratch = sb_alloc(SB_SCRATCH_SIZE + 1);
    if (ctx->scratch != NULL && copy_listener(bus, &options->listener) &&
        sb_timer_register(&ctx->loop.timers, &bus->timer, on_deadline) &&
        sb_timer_register(&ctx->loop.timers, &bus->idle_timer, on_idle_timer) &&
        sb_timer_register(&ctx->loop.timers, &bus->retire_timer, sb_reload_on_timer) && sb_pools_init(bus)) {
        return true;
    }
    sb_report_error(bus, STDIO_BUS_ERR_BUFFER, "out of memory");
    return false;
}

stdio_bus_t *stdio_bus_create_ext(const stdio_bus_options_t *options, const stdio_bus_ext_options_t *ext)
{
    stdio_bus_t *bus;
    if (options == NULL) return NULL;
    bus = sb_calloc(1, sizeof *bus);
    if (bus == NULL) return NULL;
    bus->process = getpid();
    copy_options(bus, options, ext);
    /* The host hears log lines of a bus that is not whole yet; it can't destroy what it has not been given. */
    bus->calls = 1;
    bus->whole = build(bus, options, ext);
    bus->calls = 0;
    bus->destroy_wanted = false;
    if (bus->whole) return bus;
    stdio_bus_destroy(bus);
    return NULL;
}

stdio_bus_t *stdio_bus_create(const stdio_bus_options_t *options)
{
    return stdio_bus_create_ext(options, NULL);
}

static void free_letters(stdio_bus_t *bus)
{
    while (bus->letters != NULL) {
        sb_letter *letter = bus->letters;
        bus->letters = letter->next;
        sb_free(letter);
    }
}

/* In a forked child: workers, socket files and what is open are the parent's, which goes on with them. */
static void disown(stdio_bus_t *bus)
{
    sb_loop_disown(&bus->ctx.loop);
    bus->options.on_error = NULL;
    bus->ctx.log_level = SB_LOG_ERROR + 1;
    /* Before anything can be meant for them. */
    for (size_t i = 0; i < bus->worker_count; i++) sb_worker_abort(bus->workers[i]);
}

void stdio_bus_destroy(stdio_bus_t *bus)
{
    if (bus == NULL) return;
    if (sb_bus_in_callback(bus)) {
        bus->destroy_wanted = true;
        return;
    }
    /* From here on the host hears nothing but log lines, and what it does then is refused as in a step. */
    bus->calls = 1;
    bus->options.on_worker = NULL;
    bus->options.on_client_disconnect = NULL;
    bus->ext.on_event = NULL;
    if (bus->process != getpid()) disown(bus);
    bus->state = STDIO_BUS_STATE_STOPPED;
    sb_clients_close_listeners(bus);
    sb_clients_close_all(bus, "shutdown");
    sb_clients_free_closed(bus);
    sb_pools_free(bus);
    free_letters(bus);
    sb_free(bus->listeners);
    sb_timer_unregister(&bus->ctx.loop.timers, &bus->timer);
    sb_timer_unregister(&bus->ctx.loop.timers, &bus->idle_timer);
    sb_timer_unregister(&bus->ctx.loop.timers, &bus->retire_timer);
    sb_router_free(&bus->ctx.router);
    sb_chunks_free(&bus->ctx.chunks);
    sb_loop_free(&bus->ctx.loop);
    sb_buf_free(&bus->compose);
    sb_buf_free(&bus->plain);
    sb_buf_free(&bus->request);
    sb_free(bus->ctx.scratch);
    sb_free(bus->first_host);
    sb_free(bus->first_path);
    sb_config_free(&bus->config);
    sb_free(bus);
}

/* ---- start and stop --------------------------------------------------------------------- */

static int start_all(stdio_bus_t *bus)
{
    int status = STDIO_BUS_OK;
    if (bus->first_listener.mode != STDIO_BUS_LISTEN_NONE) {
        status = sb_clients_listen(bus, &bus->first_listener);
        if (status >= 0) status = STDIO_BUS_OK;
    }
    return status == STDIO_BUS_OK ? sb_pools_start(bus) : status;
}

int stdio_bus_start(stdio_bus_t *bus)
{
    int status;
    if (bus == NULL) return STDIO_BUS_ERR_INVALID;
    if (sb_bus_in_callback(bus) || bus->state != STDIO_BUS_STATE_CREATED) return STDIO_BUS_ERR_STATE;
    sb_bus_enter(bus);
    bus->state = STDIO_BUS_STATE_STARTING;
    status = start_all(bus);
    if (status == STDIO_BUS_OK) {
        bus->state = STDIO_BUS_STATE_RUNNING;
    } else {
        for (size_t i = 0; i < bus->worker_count; i++) sb_worker_abort(bus->workers[i]);
        sb_clients_close_listeners(bus);
        bus->state = STDIO_BUS_STATE_STOPPED;
    }
    sb_bus_leave(bus);
    return status;
}

static void begin_stop(stdio_bus_t *bus, uint64_t timeout_ms)
{
    sb_clients_close_listeners(bus);
    bus->overdue = timeout_ms == 0;
    sb_timer_set(&bus->ctx.loop.timers, &bus->timer, sb_clock_now(&bus->ctx.loop.clock) + timeout_ms);
    sb_pools_stop(bus, timeout_ms);
}

static void on_deadline(sb_timer *timer)
{
    stdio_bus_t *bus = SB_CONTAINER(timer, stdio_bus_t, timer);
    if (bus->state == STDIO_BUS_STATE_RUNNING) {
        bus->state = STDIO_BUS_STATE_STOPPING;
        begin_stop(bus, bus->grace_ms);
    } else {
        bus->overdue = true;
    }
}

/* Ends idle sessions. */
static void on_idle_timer(sb_timer *timer)
{
    stdio_bus_t *bus = SB_CONTAINER(timer, stdio_bus_t, idle_timer);
    sb_router *router = &bus->ctx.router;
    uint32_t idle = bus->ctx.limits.session_idle_sec, now = (uint32_t)(bus->ctx.loop.now / 1000u);
    if (idle > 0 && now >= idle) sb_router_end_idle(router, now - idle + 1);
}

void sb_bus_tell_time(stdio_bus_t *bus)
{
    /* The host may have been away since the last turn; only where sessions end does that matter. */
    uint64_t now = bus->ctx.limits.session_idle_sec > 0 ? sb_clock_now(&bus->ctx.loop.clock) : bus->ctx.loop.now;
    /* Up to the next second, so that none ends too early. */
    bus->ctx.router.now = (uint32_t)((now + 999u) / 1000u);
}

/* Where idle sessions are to be ended: comes back when the next may be one. To be called before waiting. */
static void watch_idle(stdio_bus_t *bus)
{
    const sb_router *router = &bus->ctx.router;
    uint64_t due;
    if (bus->ctx.limits.session_idle_sec == 0 || router->idle.oldest == SB_NONE || sb_timer_is_set(&bus->idle_timer)) return;
    due = (uint64_t)sb_router_session_at(router, router->idle.oldest)->used_at + bus->ctx.limits.session_idle_sec;
    sb_timer_set(&bus->ctx.loop.timers, &bus->idle_timer, due * 1000u);
}

static bool clients_have_read(const stdio_bus_t *bus)
{
    for (const sb_conn *conn = bus->clients; conn != NULL; conn = conn->next) {
        if (conn->sink.outbox.bytes > 0) return false;
    }
    return true;
}

/* Ends draining or stopping, if nothing is left to wait for. */
static void progress(stdio_bus_t *bus)
{
    if (bus->stop_wanted) {
        bus->stop_wanted = false;
        begin_stop(bus, bus->stop_ms);
    }
    if (bus->draining) sb_clients_close_listeners(bus);
    if (bus->state == STDIO_BUS_STATE_RUNNING && bus->draining && bus->ctx.router.pending == 0 &&
        bus->letters == NULL && clients_have_read(bus)) {
        bus->state = STDIO_BUS_STATE_STOPPING;
        begin_stop(bus, bus->grace_ms);
    }
    if (bus->state != STDIO_BUS_STATE_STOPPING || sb_pools_running(bus)) return;
    sb_sink_flush_all(&bus->ctx);
    if (!bus->overdue && (bus->letters != NULL || !clients_have_read(bus))) return;
    sb_timer_cancel(&bus->ctx.loop.timers, &bus->timer);
    sb_clients_close_all(bus, "shutdown");
    bus->state = STDIO_BUS_STATE_STOPPED;
}

static int stop(stdio_bus_t *bus, uint64_t timeout_ms)
{
    switch (bus->state) {
    case STDIO_BUS_STATE_CREATED:
        if (!bus->whole) return STDIO_BUS_ERR_STATE;
        bus->state = STDIO_BUS_STATE_STOPPED;
        return STDIO_BUS_OK;
    case STDIO_BUS_STATE_STARTING: return STDIO_BUS_ERR_STATE;
    case STDIO_BUS_STATE_STOPPED: return STDIO_BUS_OK;
    case STDIO_BUS_STATE_STOPPING:
        if (timeout_ms != 0) return STDIO_BUS_OK;
        break;
    case STDIO_BUS_STATE_RUNNING: break;
    }
    bus->state = STDIO_BUS_STATE_STOPPING;
    bus->stop_wanted = true;
    bus->stop_ms = timeout_ms;
    /* Inside a callback a worker's frames are being walked: it can't be closed just now. */
    if (!sb_bus_is_nested(bus)) progress(bus);
    return STDIO_BUS_OK;
}

int sb_bus_stop(stdio_bus_t *bus, uint64_t timeout_ms)
{
    int status;
    sb_bus_enter(bus);
    status = stop(bus, timeout_ms);
    sb_bus_leave(bus);
    return status;
}

int stdio_bus_stop(stdio_bus_t *bus, int timeout_sec)
{
    if (bus == NULL || timeout_sec < 0) return STDIO_BUS_ERR_INVALID;
    return sb_bus_stop(bus, (uint64_t)timeout_sec * 1000u);
}

/* ---- step ----------------------------------------------------------------------------------- */

void sb_bus_enter(stdio_bus_t *bus)
{
    bus->calls++;
}

/* Makes the poll fd agree with what is to be done. */
static void settle(stdio_bus_t *bus)
{
    sb_loop *loop = &bus->ctx.loop;
    watch_idle(bus);
    if (loop->alarm.fd < 0) return;
    if (bus->ctx.dirty != NULL || bus->letters != NULL || bus->closed != NULL || bus->stop_wanted) sb_loop_wake(loop);
    sb_loop_settle(loop);
}

void sb_bus_leave(stdio_bus_t *bus)
{
    if (--bus->calls > 0) return;
    if (bus->destroy_wanted) {
        stdio_bus_destroy(bus);
    } else {
        settle(bus);
    }
}

int stdio_bus_step(stdio_bus_t *bus, int timeout_ms)
{
    int handled;
    if (bus == NULL) return STDIO_BUS_ERR_INVALID;
    if (sb_bus_in_callback(bus)) return STDIO_BUS_ERR_STATE;
    if (bus->state == STDIO_BUS_STATE_STOPPED || bus->state == STDIO_BUS_STATE_CREATED) return 0;
    sb_bus_enter(bus);
    sb_sink_flush_all(&bus->ctx);
    handled = sb_deliver_letters(bus);
    if (handled > 0 || bus->letters != NULL || bus->stop_wanted) timeout_ms = 0;
    watch_idle(bus);
    sb_loop_wait(&bus->ctx.loop, timeout_ms);
    /* What ends a request may end the wait of its session. */
    sb_bus_tell_time(bus);
    handled += sb_loop_hand_out(&bus->ctx.loop);
    handled += sb_deliver_letters(bus);
    sb_sink_flush_all(&bus->ctx);
    if (bus->retired != NULL) sb_reload_progress(bus);
    if (bus->state != STDIO_BUS_STATE_RUNNING || bus->draining) progress(bus);
    sb_clients_free_closed(bus);
    bus->ctx.loop.host_waits = bus->ctx.loop.alarm.fd >= 0;
    sb_bus_leave(bus);
    return handled;
}

/* ---- messages ------------------------------------------------------------------------------- */

static sb_span trim(sb_span frame)
{
    while (frame.len > 0 && (frame.ptr[frame.len - 1] == '\n' || frame.ptr[frame.len - 1] == '\r')) frame.len--;
    return frame;
}

/* A newline between tokens is legal JSON, but would end the frame too early. */
static int submit_flattened(stdio_bus_t *bus, const sb_sender *sender, sb_span frame)
{
    char *copy = sb_strndup(frame.ptr, frame.len);
    sb_span flat = {copy, frame.len};
    int status;
    if (copy == NULL) return STDIO_BUS_ERR_BUFFER;
    for (size_t i = 0; i < frame.len; i++) {
        if (copy[i] == '\n' || copy[i] == '\r') copy[i] = ' ';
    }
    status = sb_dispatch_from_client(bus, sender, flat);
    sb_free(copy);
    return status;
}

int sb_bus_submit(stdio_bus_t *bus, const sb_sender *sender, sb_span frame)
{
    size_t max = bus->ctx.limits.max_input_buffer;
    int status;
    if (bus->state != STDIO_BUS_STATE_RUNNING && bus->state != STDIO_BUS_STATE_STOPPING) return STDIO_BUS_ERR_STATE;
    /* A length that can't be right is not followed to the end; a message at the limit may have its line's end. */
    if (frame.len <= max + 2) frame = trim(frame);
    if (frame.len > max) {
        bus->more.oversize_frames++;
        return STDIO_BUS_ERR_BUFFER;
    }
    sb_bus_enter(bus);
    sb_loop_resume(&bus->ctx.loop);
    if (memchr(frame.ptr, '\n', frame.len) != NULL) {
        status = submit_flattened(bus, sender, frame);
    } else {
        status = sb_dispatch_from_client(bus, sender, frame);
    }
    sb_bus_leave(bus);
    return status;
}

int stdio_bus_ingest(stdio_bus_t *bus, const char *msg, size_t len)
{
    sb_sender sender = {0};
    sb_span frame = {msg, len};
    if (bus == NULL || msg == NULL) return STDIO_BUS_ERR_INVALID;
    sender.peer = &bus->host;
    return sb_bus_submit(bus, &sender, frame);
}

/* ---- queries ---------------------------------------------------------------------------------- */

stdio_bus_state_t stdio_bus_get_state(const stdio_bus_t *bus)
{
    return bus == NULL ? STDIO_BUS_STATE_STOPPED : bus->state;
}

void stdio_bus_get_stats(const stdio_bus_t *bus, stdio_bus_stats_t *stats)
{
    if (bus != NULL && stats != NULL) *stats = bus->stats;
}

int stdio_bus_worker_count(const stdio_bus_t *bus)
{
    int count = 0;
    if (bus == NULL) return STDIO_BUS_ERR_INVALID;
    for (size_t i = 0; i < bus->worker_count; i++) count += bus->workers[i]->state == SB_WORKER_READY;
    return count;
}

int stdio_bus_session_count(const stdio_bus_t *bus)
{
    return bus == NULL ? STDIO_BUS_ERR_INVALID : (int)bus->ctx.router.sessions.used;
}

int stdio_bus_pending_count(const stdio_bus_t *bus)
{
    return bus == NULL ? STDIO_BUS_ERR_INVALID : (int)bus->ctx.router.pending;
}

int stdio_bus_client_count(const stdio_bus_t *bus)
{
    return bus == NULL ? STDIO_BUS_ERR_INVALID : bus->client_count;
}

int stdio_bus_get_poll_fd(const stdio_bus_t *bus)
{
    if (bus == NULL || !bus->whole) return -1;
    /* The alarm behind the descriptor is only made for hosts that ask; that isn't a change they can see. */
    return sb_loop_expose(&((stdio_bus_t *)(uintptr_t)bus)->ctx.loop);
}

/* ---- embedded workers ------------------------------------------------------------------------- */

/* The slot of an embedded worker that is gone, or a new one: who comes and goes leaves nothing behind. */
static sb_worker *embedded_slot(stdio_bus_t *bus, sb_pool *pool)
{
    sb_worker *worker;
    for (worker = pool->workers; worker != NULL; worker = worker->next_of_pool) {
        if (worker->embedded && !sb_worker_runs(worker) && !worker->ending) return worker;
    }
    worker = sb_pool_add_worker(bus, pool);
    if (worker != NULL) worker->embedded = true;
    return worker;
}

int stdio_bus_register_embedded_worker(stdio_bus_t *bus, int fd_to_worker, int fd_from_worker, const char *pool_id)
{
    sb_pool *pool;
    sb_worker *worker;
    int error, id;
    if (bus == NULL || pool_id == NULL || fd_to_worker < 0 || fd_from_worker < 0 || fd_to_worker == fd_from_worker) {
        return STDIO_BUS_ERR_INVALID;
    }
    if (bus->state != STDIO_BUS_STATE_RUNNING) return STDIO_BUS_ERR_STATE;
    pool = sb_pool_named(bus, sb_span_of(pool_id));
    if (pool == NULL) return STDIO_BUS_ENOTFOUND;
    /* It would be somebody's, and nobody has asked for it. */
    if (pool->config.exclusive) return STDIO_BUS_EINVAL;
    worker = embedded_slot(bus, pool);
    if (worker == NULL) return STDIO_BUS_ERR_BUFFER;
    id = worker->id;
    sb_bus_enter(bus);
    error = sb_worker_embed(worker, fd_to_worker, fd_from_worker);
    sb_bus_leave(bus);
    return error == 0 ? id : STDIO_BUS_ERR_WORKER;
}

int stdio_bus_unregister_embedded_worker(stdio_bus_t *bus, int worker_id)
{
    sb_worker *worker;
    if (bus == NULL) return STDIO_BUS_ERR_INVALID;
    if (sb_bus_in_callback(bus)) return STDIO_BUS_ERR_STATE;
    if (worker_id < 0 || (size_t)worker_id >= bus->worker_count) return STDIO_BUS_ENOTFOUND;
    worker = bus->workers[worker_id];
    if (!worker->embedded) return STDIO_BUS_ENOTFOUND;
    sb_bus_enter(bus);
    sb_bus_tell_time(bus);
    sb_worker_stop(worker, 0);
    sb_bus_leave(bus);
    return STDIO_BUS_OK;
}
