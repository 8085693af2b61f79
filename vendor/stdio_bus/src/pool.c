#include "bus.h"
#include "launch.h"

/* Restarts: at once after a long run, else spaced out more and more. */
#define LONG_RUN_MS 10000u
#define BACKOFF_FIRST_MS 100u
#define BACKOFF_MAX_MS 30000u

/* How long a start may take to be decided; executing a program takes milliseconds. */
#define START_TIMEOUT_MS 10000

static const sb_span no_text = {NULL, 0};

bool sb_pools_init(stdio_bus_t *bus)
{
    sb_config *config = &bus->config;
    bus->pools = sb_calloc(config->pool_count, sizeof(sb_pool *));
    if (bus->pools == NULL) return false;
    for (size_t i = 0; i < config->pool_count; i++) {
        sb_pool *pool = sb_pool_new(bus, &config->pools[i]);
        if (pool == NULL) return false;
        bus->pools[bus->pool_count++] = pool;
        if (config->default_pool == i) bus->default_pool = pool;
    }
    return true;
}

static sb_pool *make_pool(stdio_bus_t *bus, sb_pool_config *config, sb_pool *model)
{
    sb_pool *pool = sb_calloc(1, sizeof *pool);
    uint32_t workers = model != NULL ? 1 : config->exclusive ? 0 : config->instances;
    if (pool == NULL) return NULL;
    if (!sb_queue_init(bus, pool)) {
        sb_free(pool);
        return NULL;
    }
    pool->bus = bus;
    pool->last_link = &pool->workers;
    pool->key = ++bus->last_pool_key;
    pool->config = *config;
    pool->model = model;
    if (model != NULL) {
        model->copies++;
    } else {
        memset(config, 0, sizeof *config);
    }
    if (!sb_handshake_init(bus, pool)) {
        sb_pool_free(bus, pool);
        return NULL;
    }
    for (uint32_t n = 0; n < workers; n++) {
        if (sb_pool_add_worker(bus, pool) == NULL) {
            sb_pool_free(bus, pool);
            return NULL;
        }
    }
    return pool;
}

void sb_pool_release(stdio_bus_t *bus, sb_worker *worker)
{
    sb_worker **at = &worker->pool->workers;
    while (*at != worker) at = &(*at)->next_of_pool;
    *at = worker->next_of_pool;
    if (*at == NULL) worker->pool->last_link = at;
    worker->retiring = false;
    worker->pool = NULL;
    worker->next_of_pool = bus->free_slots;
    bus->free_slots = worker;
}

void sb_pool_free(stdio_bus_t *bus, sb_pool *pool)
{
    while (pool->workers != NULL) sb_pool_release(bus, pool->workers);
    sb_handshake_free(bus, pool);
    sb_queue_free(bus, pool);
    sb_balance_free(&pool->balance);
    if (pool->model != NULL) {
        pool->model->copies--;
    } else {
        sb_pool_config_free(&pool->config);
    }
    sb_free(pool);
}

sb_pool *sb_pool_named(stdio_bus_t *bus, sb_span id)
{
    for (size_t i = 0; i < bus->pool_count; i++) {
        if (sb_span_is(id, bus->pools[i]->config.id)) return bus->pools[i];
    }
    return NULL;
}

/* A slot that no pool has any more, or a new one. */
static sb_worker *worker_slot(stdio_bus_t *bus)
{
    sb_worker *worker = bus->free_slots, **workers = bus->workers;
    if (worker != NULL) {
        bus->free_slots = worker->next_of_pool;
        return worker;
    }
    /* The list has room for the next power of two. */
    if ((bus->worker_count & (bus->worker_count - 1)) == 0) {
        size_t room = bus->worker_count ? bus->worker_count * 2 : 1;
        workers = sb_realloc(workers, room * sizeof(sb_worker *));
        if (workers == NULL) return NULL;
        bus->workers = workers;
    }
    worker = sb_worker_new(&bus->ctx, (int)bus->worker_count);
    if (worker != NULL) workers[bus->worker_count++] = worker;
    return worker;
}

sb_worker *sb_pool_add_worker(stdio_bus_t *bus, sb_pool *pool)
{
    sb_worker *worker = worker_slot(bus);
    if (worker == NULL) return NULL;
    *pool->last_link = worker;
    pool->last_link = &worker->next_of_pool;
    worker->next_of_pool = NULL;
    worker->pool = pool;
    worker->config = &pool->config;
    worker->retiring = worker->embedded = false;
    memset(&worker->restarts, 0, sizeof worker->restarts);
    return worker;
}

sb_pool *sb_pool_new(stdio_bus_t *bus, sb_pool_config *config)
{
    return make_pool(bus, config, NULL);
}

sb_pool *sb_pool_new_private(stdio_bus_t *bus, sb_pool *model)
{
    return make_pool(bus, &model->config, model);
}

void sb_pool_start_workers(stdio_bus_t *bus, sb_pool *pool)
{
    /* A start is a retry that is due at once; what goes wrong with it is treated like any other failed start. */
    for (sb_worker *worker = pool->workers; worker != NULL; worker = worker->next_of_pool) {
        sb_worker_retry_at(worker, bus->ctx.loop.now, false);
    }
    pool->started = true;
}

void sb_report_launch(stdio_bus_t *bus, const char *what, const sb_pool_config *pool, const char *step, int error)
{
    bool cwd = pool->cwd != NULL;
    sb_report_error(bus, STDIO_BUS_ERR_WORKER, "%s%scannot %s %s (pool %s%s%s): %s", what, what[0] ? ": " : "", step,
                    pool->command, pool->id, cwd ? ", cwd " : "", cwd ? pool->cwd : "", strerror(error));
}

static void report_failed_start(stdio_bus_t *bus, const sb_worker *worker, int error)
{
    sb_report_launch(bus, "", worker->config, worker->exec_step, error);
}

/* An exclusive pool starts its workers later, but what can't be started is told now. */
static int check_exclusive(stdio_bus_t *bus, const sb_pool *pool)
{
    const char *step;
    int error = pool->config.exclusive ? sb_launch_check(&pool->config, &step) : 0;
    if (error == 0) return STDIO_BUS_OK;
    sb_report_launch(bus, "", &pool->config, step, error);
    return STDIO_BUS_ERR_WORKER;
}

int sb_pools_start(stdio_bus_t *bus)
{
    int error = 0;
    for (size_t i = 0; i < bus->pool_count; i++) {
        if (check_exclusive(bus, bus->pools[i]) != STDIO_BUS_OK) return STDIO_BUS_ERR_WORKER;
        bus->pools[i]->started = true;
    }
    /* All are forked before the first is waited for. */
    for (size_t i = 0; i < bus->worker_count && error == 0; i++) {
        error = sb_worker_start(bus->workers[i]);
        if (error != 0) report_failed_start(bus, bus->workers[i], error);
    }
    for (size_t i = 0; i < bus->worker_count && error == 0; i++) {
        error = sb_worker_await(bus->workers[i], START_TIMEOUT_MS);
        if (error != 0) report_failed_start(bus, bus->workers[i], error);
    }
    return error == 0 ? STDIO_BUS_OK : STDIO_BUS_ERR_WORKER;
}

void sb_pools_stop(stdio_bus_t *bus, uint64_t timeout_ms)
{
    for (size_t i = 0; i < bus->worker_count; i++) sb_worker_stop(bus->workers[i], timeout_ms);
    /* Of a worker that doesn't run nobody will hear that it has stopped. */
    for (size_t i = 0; i < bus->worker_count; i++) {
        if (bus->workers[i]->pool != NULL) sb_pool_fail_queue(bus, bus->workers[i]->pool);
    }
}

bool sb_pools_running(const stdio_bus_t *bus)
{
    for (size_t i = 0; i < bus->worker_count; i++) {
        if (sb_worker_runs(bus->workers[i])) return true;
    }
    return false;
}

static void free_all(stdio_bus_t *bus, sb_pool **list, bool only_private)
{
    for (sb_pool **at = list; *at != NULL;) {
        sb_pool *pool = *at;
        if (only_private && pool->model == NULL) {
            at = &pool->next;
        } else {
            *at = pool->next;
            sb_pool_free(bus, pool);
        }
    }
}

void sb_pools_free(stdio_bus_t *bus)
{
    for (size_t i = 0; i < bus->worker_count; i++) sb_worker_abort(bus->workers[i]);
    /* Private ones first: they share the configuration of others. */
    free_all(bus, &bus->private_pools, false);
    free_all(bus, &bus->retired, true);
    for (size_t i = 0; i < bus->pool_count; i++) sb_pool_free(bus, bus->pools[i]);
    free_all(bus, &bus->retired, false);
    for (size_t i = 0; i < bus->worker_count; i++) sb_worker_free(bus->workers[i]);
    sb_free(bus->workers);
    sb_free(bus->pools);
    bus->pool_count = bus->worker_count = 0;
}

bool sb_pool_recovers(const sb_pool *pool)
{
    for (const sb_worker *worker = pool->workers; worker != NULL; worker = worker->next_of_pool) {
        if (worker->state == SB_WORKER_STARTING || worker->state == SB_WORKER_BACKOFF) return true;
        /* On its way out, and started again after that. */
        if (worker->state == SB_WORKER_READY && !worker->embedded && worker->config->restart == SB_RESTART_ALWAYS) {
            return true;
        }
    }
    return false;
}

/* ---- workers come and go ------------------------------------------------------------ */

void sb_pool_worker_started(sb_ctx *ctx, sb_worker *worker)
{
    stdio_bus_t *bus = sb_bus_of(ctx);
    sb_pool *pool = worker->pool;
    sb_log(ctx, SB_LOG_INFO, "worker %d (%s) started, pid %d, generation %u", worker->id, pool->config.id,
           (int)worker->pid, worker->generation);
    sb_report_worker(bus, STDIO_BUS_EVENT_WORKER_STARTED, worker, no_text, 0);
    /* It may have ended before its start was noticed. */
    if (worker->ending) return;
    if (!sb_handshake_begin(bus, worker)) sb_pool_worker_ready(bus, worker);
}

void sb_pool_worker_ready(stdio_bus_t *bus, sb_worker *worker)
{
    sb_worker_ready(worker);
    if (!sb_worker_takes(worker)) return;
    if (!sb_balance_add(&worker->pool->balance, &worker->peer.node, sb_peer_load(&worker->peer))) {
        sb_report_error(bus, STDIO_BUS_ERR, "out of memory");
        sb_worker_stop(worker, 0);
        return;
    }
    /* Before anybody hears of it: what has waited comes first. */
    sb_pool_flush_queue(bus, worker->pool, worker->pool);
    /* An initialize may have been among it. */
    if (sb_worker_takes(worker)) sb_report_worker(bus, STDIO_BUS_EVENT_WORKER_READY, worker, no_text, 0);
}

void sb_pool_worker_stalled(sb_ctx *ctx, sb_worker *worker)
{
    sb_log(ctx, SB_LOG_WARN, "worker %d (%s) does not read its input", worker->id, worker->config->id);
    sb_report_worker(sb_bus_of(ctx), STDIO_BUS_EVENT_WORKER_STALLED, worker, no_text, 0);
    /* A busy worker is better than none. */
    if (worker->pool->balance.count > 1) sb_balance_remove(&worker->peer.node);
}

void sb_pool_worker_reads(sb_ctx *ctx, sb_worker *worker)
{
    stdio_bus_t *bus = sb_bus_of(ctx);
    if (!sb_worker_takes(worker)) return;
    if (worker->peer.node.balance == NULL) {
        sb_balance_add(&worker->pool->balance, &worker->peer.node, sb_peer_load(&worker->peer));
    }
    sb_report_worker(bus, STDIO_BUS_EVENT_WORKER_READY, worker, no_text, 0);
}

void sb_pool_worker_writable(sb_ctx *ctx, sb_worker *worker)
{
    sb_report_worker(sb_bus_of(ctx), STDIO_BUS_EVENT_WORKER_WRITABLE, worker, no_text, 0);
}

void sb_pool_worker_stopping(sb_ctx *ctx, sb_worker *worker)
{
    sb_report_worker(sb_bus_of(ctx), STDIO_BUS_EVENT_WORKER_STOPPING, worker, no_text, 0);
}

static void tell_exit(const sb_worker *worker, sb_error *error, char tail[SB_ANSWER_STDERR_MAX])
{
    error->worker = worker->id;
    error->exited = !worker->embedded;
    error->exit = worker->exit;
    error->uptime_ms = worker->uptime_ms;
    if (sb_diag_tail(&worker->diag, true, tail, SB_ANSWER_STDERR_MAX) > 0) error->stderr_tail = tail;
}

void sb_pool_explain(const sb_pool *pool, sb_error *error, char tail[SB_ANSWER_STDERR_MAX])
{
    for (const sb_worker *worker = pool->workers; worker != NULL; worker = worker->next_of_pool) {
        bool has_ended = !worker->embedded && !sb_worker_runs(worker) && worker->generation > 0;
        if (!has_ended) continue;
        tell_exit(worker, error, tail);
        return;
    }
}

static void fail_requests(stdio_bus_t *bus, sb_worker *worker)
{
    char tail[SB_ANSWER_STDERR_MAX];
    sb_error error = sb_error_of(SB_RPC_WORKER_EXITED, "worker_exited", "The worker exited before it answered");
    if (bus->state != STDIO_BUS_STATE_RUNNING) {
        error = sb_error_of(SB_RPC_SHUTTING_DOWN, "shutting_down", "The bus is shutting down");
    }
    error.pool = worker->config->id;
    tell_exit(worker, &error, tail);
    sb_dispatch_fail_held(bus, worker, &error);
    sb_dispatch_forget_asked(bus, &worker->peer);
}

static uint64_t backoff(stdio_bus_t *bus, const sb_worker *worker)
{
    uint32_t doublings = worker->restarts.backoffs < 9 ? worker->restarts.backoffs : 9;
    uint64_t delay = (uint64_t)BACKOFF_FIRST_MS << doublings;
    uint32_t keys[2] = {worker->peer.key, worker->restarts.total};
    sb_span salt = {(const char *)keys, sizeof keys};
    if (delay > BACKOFF_MAX_MS) delay = BACKOFF_MAX_MS;
    /* Up to a quarter less, so that workers that died together don't come back together. */
    return delay - sb_hash(bus->ctx.router.seed, bus->ctx.loop.now, salt) % (delay / 4 + 1);
}

static void give_up(stdio_bus_t *bus, sb_worker *worker, bool for_good)
{
    sb_pool *pool = worker->pool;
    uint64_t window = (uint64_t)bus->ctx.limits.restart_window_sec * 1000u;
    uint64_t due = for_good ? UINT64_MAX : worker->restarts.window_start + window;
    if (!for_good) {
        sb_log(&bus->ctx, SB_LOG_ERROR, "worker %d (%s) failed: more than %u restarts in %u s", worker->id,
               pool->config.id, bus->ctx.limits.max_restarts, bus->ctx.limits.restart_window_sec);
        sb_report_worker(bus, STDIO_BUS_EVENT_WORKER_FAILED, worker, sb_span_of("too many restarts"), 0);
        sb_worker_retry_at(worker, due, true);
    }
    if (pool->balance.count == 0 && !sb_pool_recovers(pool)) sb_pool_fail_queue(bus, pool);
}

/* Whether the policy wants it back after this exit. */
static bool wants_restart(const stdio_bus_t *bus, const sb_worker *worker)
{
    bool success = worker->exit.signal == 0 && worker->exit.code == 0;
    if (worker->embedded || bus->ctx.limits.max_restarts == 0) return false;
    return worker->config->restart == SB_RESTART_ALWAYS || (worker->config->restart == SB_RESTART_ON_FAILURE && !success);
}

static void plan_restart(stdio_bus_t *bus, sb_worker *worker)
{
    uint64_t now = sb_clock_now(&bus->ctx.loop.clock), delay = 0;
    uint64_t window = (uint64_t)bus->ctx.limits.restart_window_sec * 1000u;
    if (!wants_restart(bus, worker)) {
        give_up(bus, worker, true);
        return;
    }
    if (worker->restarts.in_window == 0 || now - worker->restarts.window_start >= window) {
        worker->restarts.window_start = now;
        worker->restarts.in_window = 0;
    }
    if (++worker->restarts.in_window > bus->ctx.limits.max_restarts) {
        worker->restarts.in_window = 0;
        give_up(bus, worker, false);
        return;
    }
    if (worker->served && worker->uptime_ms > LONG_RUN_MS) {
        worker->restarts.backoffs = 0;
    } else {
        delay = backoff(bus, worker);
        worker->restarts.backoffs++;
    }
    worker->restarts.total++;
    sb_pool_counted(worker->pool)->restarts++;
    bus->stats.worker_restarts++;
    sb_worker_retry_at(worker, now + delay, false);
    sb_log(&bus->ctx, SB_LOG_INFO, "worker %d (%s) is restarted in %u ms", worker->id, worker->config->id,
           (unsigned)delay);
    sb_report_worker(bus, STDIO_BUS_EVENT_WORKER_RESTARTING, worker, no_text, (uint32_t)delay);
}

static void log_exit(stdio_bus_t *bus, const sb_worker *worker)
{
    /* One that was to end anyway is no news. */
    bool expected = bus->state != STDIO_BUS_STATE_RUNNING || worker->retiring;
    int level = expected ? SB_LOG_INFO : SB_LOG_WARN;
    if (worker->embedded) {
        sb_log(&bus->ctx, level, "worker %d (%s) is gone", worker->id, worker->config->id);
    } else if (worker->exec_error != 0) {
        sb_log(&bus->ctx, level, "worker %d (%s): cannot %s %s: %s", worker->id, worker->config->id,
               worker->exec_step, worker->config->command, strerror(worker->exec_error));
    } else if (worker->exit.signal != 0) {
        sb_log(&bus->ctx, level, "worker %d (%s) was ended by signal %d", worker->id, worker->config->id,
               worker->exit.signal);
    } else {
        sb_log(&bus->ctx, level, "worker %d (%s) exited with code %d", worker->id, worker->config->id,
               worker->exit.code);
    }
}

/* The bus's own request ends with its worker. */
static void forget_hello(sb_worker *worker)
{
    sb_sink *sink = &worker->sink;
    if (worker->hello != 0 && sink->unsent > 0 && (int32_t)(worker->hello_at - sink->unsent_at) >= 0) sink->unsent--;
    worker->hello = 0;
}

static void report_stopped(stdio_bus_t *bus, sb_worker *worker)
{
    char tail[SB_ANSWER_STDERR_MAX];
    sb_span text = {tail, sb_diag_tail(&worker->diag, true, tail, sizeof tail)};
    sb_report_worker(bus, STDIO_BUS_EVENT_WORKER_STOPPED, worker, text.len > 0 ? text : no_text, 0);
}

void sb_pool_worker_stopped(sb_ctx *ctx, sb_worker *worker)
{
    stdio_bus_t *bus = sb_bus_of(ctx);
    sb_pool *pool = worker->pool;
    uint32_t lost;
    forget_hello(worker);
    lost = sb_dispatch_count_unsent(bus, &worker->peer, &worker->sink);
    log_exit(bus, worker);
    fail_requests(bus, worker);
    sb_router_remove(&ctx->router, &worker->peer);
    sb_report_unsent(bus, worker, NULL, lost, "the worker is gone");
    report_stopped(bus, worker);
    if (worker->retiring) {
        sb_pool_release(bus, worker);
    } else if (bus->state == STDIO_BUS_STATE_RUNNING) {
        plan_restart(bus, worker);
        /* What waited for this one in particular need not. */
        if (pool->balance.count > 0) sb_pool_flush_queue(bus, pool, pool);
    } else {
        sb_pool_fail_queue(bus, pool);
    }
}

void sb_pool_worker_retry(sb_ctx *ctx, sb_worker *worker)
{
    stdio_bus_t *bus = sb_bus_of(ctx);
    int error;
    if (bus->state != STDIO_BUS_STATE_RUNNING) return;
    error = sb_worker_start(worker);
    if (error == 0) return;
    /* As if it had started and ended at once. */
    worker->exit.code = 127;
    worker->exit.signal = 0;
    worker->uptime_ms = 0;
    worker->state = SB_WORKER_STOPPED;
    log_exit(bus, worker);
    plan_restart(bus, worker);
}
