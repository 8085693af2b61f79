#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include "launch.h"

/* Without a pidfd, how often a child's end is looked for. */
#define REAP_POLL_MS 1000u
#define REAP_POLL_SOON_MS 5u

/* Output that a dead worker left in its pipes is read in at most this many steps. */
#define DRAIN_READS 64

/* How long a worker that has closed its stdout or stdin may take to end. */
#define LEAVE_TIMEOUT_MS 5000u

/* Of a stop's time: how long at most end of input may take to work, and what is kept for SIGKILL. */
#define EOF_GRACE_MS 2000u
#define KILL_RESERVE_MS 1000u

typedef enum { EV_SPAWNED, EV_READY, EV_UNREADY, EV_STOP, EV_ENDED, EV_RETRY_LATER, EV_GIVE_UP, EV_COUNT } event;

/* -1: cannot happen. */
static const signed char transition[6][EV_COUNT] = {
    /*              SPAWNED            READY        UNREADY          STOP                ENDED          RETRY_LATER GIVE_UP */
    [SB_WORKER_STOPPED] = {SB_WORKER_STARTING, -1, -1, SB_WORKER_STOPPED, -1, SB_WORKER_BACKOFF, SB_WORKER_FAILED},
    [SB_WORKER_STARTING] = {-1, SB_WORKER_READY, -1, SB_WORKER_STOPPING, SB_WORKER_STOPPED, -1, -1},
    [SB_WORKER_READY] = {-1, -1, SB_WORKER_STARTING, SB_WORKER_STOPPING, SB_WORKER_STOPPED, -1, -1},
    [SB_WORKER_STOPPING] = {-1, -1, -1, SB_WORKER_STOPPING, SB_WORKER_STOPPED, -1, -1},
    [SB_WORKER_BACKOFF] = {SB_WORKER_STARTING, -1, -1, SB_WORKER_STOPPED, -1, -1, -1},
    [SB_WORKER_FAILED] = {SB_WORKER_STARTING, -1, -1, SB_WORKER_STOPPED, -1, -1, -1},
};

/* Returns whether the state has changed. */
static bool enter(sb_worker *worker, event what)
{
    signed char next = transition[worker->state][what];
    sb_worker_state before = worker->state;
    if (next < 0) return false;
    worker->state = (sb_worker_state)next;
    return worker->state != before;
}

static void on_timer(sb_timer *timer);
static void on_stall_timer(sb_timer *timer);
static void on_verdict(sb_io *io, unsigned events);
static void on_process(sb_io *io, unsigned events);
static void on_output(sb_io *io, unsigned events);
static void on_stderr(sb_io *io, unsigned events);
static void on_input(sb_io *io, unsigned events);
static void on_flushed(sb_ctx *ctx, sb_sink *sink, int error);
static void ended(sb_worker *worker);

sb_worker *sb_worker_new(sb_ctx *ctx, int id)
{
    sb_worker *worker = sb_calloc(1, sizeof *worker);
    if (worker == NULL) return NULL;
    worker->ctx = ctx;
    if (!sb_timer_register(&ctx->loop.timers, &worker->timer, on_timer) ||
        !sb_timer_register(&ctx->loop.timers, &worker->stall_timer, on_stall_timer)) {
        sb_worker_free(worker);
        return NULL;
    }
    worker->id = id;
    worker->in.fd = worker->out.fd = worker->err.fd = worker->process.fd = worker->verdict.fd = -1;
    return worker;
}

void sb_worker_free(sb_worker *worker)
{
    if (worker == NULL) return;
    sb_timer_unregister(&worker->ctx->loop.timers, &worker->timer);
    sb_timer_unregister(&worker->ctx->loop.timers, &worker->stall_timer);
    sb_shares_free(&worker->shares);
    sb_source_free(&worker->source);
    sb_diag_free(&worker->diag);
    sb_free(worker);
}

/* ---- start ------------------------------------------------------------------------ */

static void close_io(sb_worker *worker, sb_io *io)
{
    int fd = io->fd;
    if (fd < 0) return;
    sb_loop_unwatch(&worker->ctx->loop, io);
    close(fd);
}

/* Watches the child's descriptors; on failure none is watched, and all stay the caller's. Returns 0 or an errno value. */
static int watch_all(sb_worker *worker, const sb_child *child)
{
    const struct {
        sb_io *io;
        int fd;
        unsigned interest;
        sb_io_fn on_ready;
    } parts[] = {
        {&worker->in, child->to, 0, on_input},
        {&worker->out, child->from, SB_READ, on_output},
        {&worker->err, child->err, SB_READ, on_stderr},
        {&worker->verdict, child->verdict, SB_READ, on_verdict},
    };
    sb_loop *loop = &worker->ctx->loop;
    int error = 0;
    for (size_t i = 0; i < SB_COUNT(parts) && error == 0; i++) {
        if (parts[i].fd < 0) continue;
        error = sb_loop_watch(loop, parts[i].io, parts[i].fd, parts[i].interest, parts[i].on_ready);
    }
    for (size_t i = 0; i < SB_COUNT(parts) && error != 0; i++) sb_loop_unwatch(loop, parts[i].io);
    return error;
}

/* Learns of the child's end by a pidfd; without one it is looked for from time to time. */
static void watch_process(sb_worker *worker)
{
    int fd = sb_reap_open(worker->pid);
    if (fd >= 0 && sb_loop_watch(&worker->ctx->loop, &worker->process, fd, SB_READ, on_process) != 0) close(fd);
}

static void prepare(sb_worker *worker, const sb_child *child)
{
    sb_sink_init(&worker->sink, &worker->in, child->to, on_flushed);
    worker->seen_written = 0;
    worker->stalled = worker->refused = worker->served = false;
    worker->hello = worker->fence = 0;
    worker->ladder = SB_LADDER_NONE;
    worker->generation++;
    worker->started_at = sb_clock_now(&worker->ctx->loop.clock);
    sb_diag_mark(&worker->diag);
    sb_source_free(&worker->source);
    sb_source_init(&worker->source, worker->ctx->limits.max_input_buffer);
    sb_peer_init(&worker->ctx->router, &worker->peer, true);
    enter(worker, EV_SPAWNED);
}

/* Sets the timer of a process: the ladder's next rung, or earlier, where its end has to be looked for. */
static void arm(sb_worker *worker)
{
    uint64_t due = worker->ladder == SB_LADDER_EOF || worker->ladder == SB_LADDER_TERM ? worker->rung_at : UINT64_MAX;
    if (worker->process.fd < 0) {
        bool soon = worker->ladder != SB_LADDER_NONE;
        uint64_t look = sb_clock_now(&worker->ctx->loop.clock) + (soon ? REAP_POLL_SOON_MS : REAP_POLL_MS);
        if (look < due) due = look;
    }
    if (due != UINT64_MAX) {
        sb_timer_set(&worker->ctx->loop.timers, &worker->timer, due);
    } else {
        sb_timer_cancel(&worker->ctx->loop.timers, &worker->timer);
    }
}

static void close_child(const sb_child *child)
{
    int fds[] = {child->to, child->from, child->err, child->verdict};
    for (size_t i = 0; i < SB_COUNT(fds); i++) {
        if (fds[i] >= 0) close(fds[i]);
    }
    kill(child->pid, SIGKILL);
    sb_reap(child->pid);
}

int sb_worker_start(sb_worker *worker)
{
    sb_child child;
    int error = sb_launch(worker->ctx, worker->config, &child);
    worker->exec_step = "execute";
    if (error == 0) {
        error = watch_all(worker, &child);
        if (error != 0) close_child(&child);
    }
    worker->exec_error = error;
    if (error != 0) return error;
    sb_timer_cancel(&worker->ctx->loop.timers, &worker->timer);
    worker->pid = child.pid;
    watch_process(worker);
    prepare(worker, &child);
    arm(worker);
    return 0;
}

int sb_worker_embed(sb_worker *worker, int fd_to, int fd_from)
{
    sb_child child = {0, fd_to, fd_from, -1, -1};
    int error = watch_all(worker, &child);
    if (error != 0) return error;
    fcntl(fd_to, F_SETFL, fcntl(fd_to, F_GETFL) | O_NONBLOCK);
    fcntl(fd_from, F_SETFL, fcntl(fd_from, F_GETFL) | O_NONBLOCK);
    worker->embedded = true;
    prepare(worker, &child);
    worker->ctx->hooks.worker_started(worker->ctx, worker);
    return 0;
}

static void on_verdict(sb_io *io, unsigned events)
{
    sb_worker *worker = SB_CONTAINER(io, sb_worker, verdict);
    (void)events;
    switch (sb_spawn_verdict(io->fd, &worker->exec_error, &worker->exec_step)) {
    case SB_SPAWN_UNDECIDED: return;
    case SB_SPAWN_FAILED: break; /* The child exits by itself. */
    case SB_SPAWN_EXECUTED:
        /* It may have been asked to stop meanwhile. */
        if (worker->state == SB_WORKER_STARTING) worker->ctx->hooks.worker_started(worker->ctx, worker);
        break;
    }
    close_io(worker, &worker->verdict);
}

int sb_worker_await(sb_worker *worker, int timeout_ms)
{
    uint64_t until = sb_clock_now(&worker->ctx->loop.clock) + (uint64_t)timeout_ms;
    while (worker->verdict.fd >= 0) {
        struct pollfd wait = {worker->verdict.fd, POLLIN, 0};
        uint64_t now = sb_clock_now(&worker->ctx->loop.clock);
        if (now >= until) return ETIMEDOUT;
        if (poll(&wait, 1, (int)(until - now)) > 0) on_verdict(&worker->verdict, SB_READ);
    }
    return worker->exec_error;
}

/* ---- running ------------------------------------------------------------------------ */

void sb_worker_ready(sb_worker *worker)
{
    worker->served = true;
    enter(worker, EV_READY);
}

void sb_worker_unready(sb_worker *worker)
{
    enter(worker, EV_UNREADY);
}

/* It can no longer be talked to; if it doesn't end by itself soon, it is made to. */
void sb_worker_leave(sb_worker *worker)
{
    close_io(worker, &worker->in);
    sb_sink_close(worker->ctx, &worker->sink);
    sb_balance_remove(&worker->peer.node);
    if (worker->embedded || sb_reap_ended(worker->pid)) {
        ended(worker);
    } else if (worker->ladder == SB_LADDER_NONE) {
        worker->ladder = SB_LADDER_EOF;
        worker->rung_at = worker->ctx->loop.now + EOF_GRACE_MS;
        worker->kill_at = worker->ctx->loop.now + LEAVE_TIMEOUT_MS;
        arm(worker);
    }
}

static bool take_frame(sb_ctx *ctx, void *owner, sb_span frame)
{
    sb_worker *worker = owner;
    ctx->hooks.worker_frame(ctx, worker, frame);
    return worker->out.fd >= 0;
}

static bool take_oversize(sb_ctx *ctx, void *owner, sb_span beginning)
{
    sb_worker *worker = owner;
    ctx->hooks.worker_oversize(ctx, worker, beginning);
    return worker->out.fd >= 0;
}

static const sb_source_fns output_fns = {take_frame, take_oversize};

static sb_source_result read_output(sb_worker *worker)
{
    sb_source_result result = sb_source_read(worker->ctx, &worker->source, worker->out.fd, &output_fns, worker);
    if (result == SB_SOURCE_END || result == SB_SOURCE_ERROR) close_io(worker, &worker->out);
    return result;
}

static void on_output(sb_io *io, unsigned events)
{
    sb_worker *worker = SB_CONTAINER(io, sb_worker, out);
    (void)events;
    read_output(worker);
    if (io->fd < 0 && (worker->pid != 0 || worker->embedded) && worker->state != SB_WORKER_STOPPED) sb_worker_leave(worker);
}

static void emit_stderr(void *owner, sb_span line)
{
    sb_worker *worker = owner;
    worker->ctx->hooks.worker_stderr(worker->ctx, worker, line);
}

static bool read_stderr(sb_worker *worker)
{
    ssize_t n = read(worker->err.fd, worker->ctx->scratch, 65536);
    if (n > 0) {
        sb_span bytes = {worker->ctx->scratch, (size_t)n};
        sb_diag_feed(&worker->diag, bytes, emit_stderr, worker);
        return true;
    }
    if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        sb_diag_finish(&worker->diag, emit_stderr, worker);
        close_io(worker, &worker->err);
    }
    return false;
}

static void on_stderr(sb_io *io, unsigned events)
{
    (void)events;
    read_stderr(SB_CONTAINER(io, sb_worker, err));
}

static void on_input(sb_io *io, unsigned events)
{
    sb_worker *worker = SB_CONTAINER(io, sb_worker, in);
    if (events & SB_HANGUP) {
        sb_worker_leave(worker);
    } else if (events & SB_WRITE) {
        sb_sink_flush(worker->ctx, &worker->sink);
    }
}

void sb_worker_queued(sb_worker *worker, uint32_t link, size_t len)
{
    sb_shares_add(&worker->shares, &worker->ctx->router, link, len);
}

static void has_read(sb_worker *worker, uint32_t len)
{
    sb_ctx *ctx = worker->ctx;
    size_t left = worker->sink.outbox.bytes;
    worker->seen_written += len;
    worker->reads_at = ctx->loop.now;
    sb_shares_take(&worker->shares, &ctx->router, len);
    if (worker->stalled) {
        worker->stalled = false;
        ctx->hooks.worker_reads(ctx, worker);
    }
    if (worker->refused && left <= ctx->limits.max_output_queue / 2) {
        worker->refused = false;
        ctx->hooks.worker_writable(ctx, worker);
    }
}

/* After how long a silence something is due that was not due after `silent`; UINT64_MAX: nothing. */
static uint64_t next_stall(const sb_worker *worker, uint64_t silent)
{
    uint64_t limit = (uint64_t)worker->ctx->limits.stall_timeout_sec * 1000u, next = UINT64_MAX;
    if (silent < SB_STALLED_MS) next = SB_STALLED_MS;
    if (silent < limit && limit < next) next = limit;
    return next;
}

/* What stays unread is looked at again after a while; one timer for any number of flushes. */
static void watch_reading(sb_worker *worker)
{
    sb_ctx *ctx = worker->ctx;
    if (worker->sink.outbox.bytes == 0 || sb_timer_is_set(&worker->stall_timer)) return;
    worker->reads_at = ctx->loop.now;
    sb_timer_set(&ctx->loop.timers, &worker->stall_timer, ctx->loop.now + next_stall(worker, 0));
}

static void on_stall_timer(sb_timer *timer)
{
    sb_worker *worker = SB_CONTAINER(timer, sb_worker, stall_timer);
    sb_ctx *ctx = worker->ctx;
    uint64_t silent = ctx->loop.now - worker->reads_at, limit = (uint64_t)ctx->limits.stall_timeout_sec * 1000u;
    uint64_t next = next_stall(worker, silent);
    if (worker->sink.outbox.bytes == 0 || !sb_worker_takes(worker)) return;
    if (silent >= SB_STALLED_MS && !worker->stalled) {
        worker->stalled = true;
        ctx->hooks.worker_stalled(ctx, worker);
    }
    if (limit > 0 && silent >= limit) {
        sb_log(ctx, SB_LOG_WARN, "worker %d (%s) has not read for %u s and is stopped", worker->id, worker->config->id,
               ctx->limits.stall_timeout_sec);
        sb_worker_leave(worker);
    } else if (next != UINT64_MAX) {
        sb_timer_set(&ctx->loop.timers, timer, worker->reads_at + next);
    }
}

static void on_flushed(sb_ctx *ctx, sb_sink *sink, int error)
{
    sb_worker *worker = SB_CONTAINER(sink, sb_worker, sink);
    uint32_t written = sink->written - worker->seen_written;
    (void)ctx;
    if (written > 0) has_read(worker, written);
    if (error != 0) {
        sb_worker_leave(worker);
        return;
    }
    watch_reading(worker);
    if (worker->state == SB_WORKER_STOPPING && sink->outbox.bytes == 0) {
        close_io(worker, &worker->in);
    }
}

/* ---- stop --------------------------------------------------------------------------- */

static void signal_group(sb_worker *worker, int sig)
{
    /* The group exists once either side has called setpgid; until then there is just the child. */
    if (kill(-worker->pid, sig) != 0) kill(worker->pid, sig);
}

static void climb(sb_worker *worker)
{
    bool stopping = worker->state == SB_WORKER_STOPPING;
    if (worker->ladder == SB_LADDER_EOF) {
        worker->ladder = SB_LADDER_TERM;
        worker->rung_at = worker->kill_at;
        sb_log(worker->ctx, stopping ? SB_LOG_INFO : SB_LOG_WARN, "worker %d (%s) %s, and has not ended: SIGTERM", worker->id,
               worker->config->id, stopping ? "was told that nothing more comes" : "no longer talks to the bus");
        signal_group(worker, SIGTERM);
    } else if (worker->ladder == SB_LADDER_TERM) {
        worker->ladder = SB_LADDER_KILL;
        sb_log(worker->ctx, SB_LOG_INFO, "worker %d (%s) has not ended: SIGKILL", worker->id, worker->config->id);
        signal_group(worker, SIGKILL);
    }
}

static void stop_embedded(sb_worker *worker)
{
    if (worker->sink.outbox.bytes > 0) sb_sink_flush(worker->ctx, &worker->sink);
    if (sb_worker_runs(worker)) ended(worker);
}

static void stop_process(sb_worker *worker, uint64_t timeout_ms)
{
    uint64_t now = sb_clock_now(&worker->ctx->loop.clock);
    uint64_t third = timeout_ms / 3;
    worker->kill_at = now + timeout_ms - (third < KILL_RESERVE_MS ? third : KILL_RESERVE_MS);
    if (timeout_ms == 0) {
        worker->ladder = SB_LADDER_TERM;
        climb(worker);
    } else if (worker->ladder < SB_LADDER_TERM) {
        worker->ladder = SB_LADDER_EOF;
        worker->rung_at = now + (third < EOF_GRACE_MS ? third : EOF_GRACE_MS);
    } else if (worker->ladder == SB_LADDER_TERM) {
        worker->rung_at = worker->kill_at;
    }
    arm(worker);
    /* Closes its stdin once everything queued has been written. */
    if (worker->in.fd >= 0) sb_sink_flush(worker->ctx, &worker->sink);
}

void sb_worker_stop(sb_worker *worker, uint64_t timeout_ms)
{
    if (!sb_worker_runs(worker)) {
        sb_timer_cancel(&worker->ctx->loop.timers, &worker->timer);
        enter(worker, EV_STOP);
        return;
    }
    sb_balance_remove(&worker->peer.node);
    if (enter(worker, EV_STOP)) worker->ctx->hooks.worker_stopping(worker->ctx, worker);
    if (worker->embedded) {
        stop_embedded(worker);
    } else {
        stop_process(worker, timeout_ms);
    }
}

/* ---- the end -------------------------------------------------------------------------- */

static void close_all(sb_worker *worker)
{
    close_io(worker, &worker->in);
    close_io(worker, &worker->out);
    close_io(worker, &worker->err);
    close_io(worker, &worker->verdict);
    close_io(worker, &worker->process);
    sb_sink_close(worker->ctx, &worker->sink);
    sb_shares_clear(&worker->shares, &worker->ctx->router);
    sb_shares_free(&worker->shares);
    sb_source_free(&worker->source);
    sb_timer_cancel(&worker->ctx->loop.timers, &worker->stall_timer);
}

static void reap_process(sb_worker *worker)
{
    /* What it started must not outlive it. As long as the leader is a zombie, the group's id can't be anybody else's. */
    kill(-worker->pid, SIGKILL);
    worker->exit = sb_reap(worker->pid);
    worker->last_pid = worker->pid;
    worker->pid = 0;
}

/* The process has ended (or the embedded worker was closed): takes what it still had to say, then tells. */
static void ended(sb_worker *worker)
{
    worker->ending = true;
    /* Nothing more is sent to it, whatever it is found to have said. */
    close_io(worker, &worker->in);
    sb_balance_remove(&worker->peer.node);
    sb_timer_cancel(&worker->ctx->loop.timers, &worker->timer);
    if (worker->verdict.fd >= 0) on_verdict(&worker->verdict, SB_READ);
    for (int i = 0; i < DRAIN_READS && worker->out.fd >= 0; i++) {
        if (read_output(worker) != SB_SOURCE_MORE) break;
    }
    for (int i = 0; i < DRAIN_READS && worker->err.fd >= 0 && read_stderr(worker); i++) {
    }
    sb_diag_finish(&worker->diag, emit_stderr, worker);
    worker->exit.code = 0;
    worker->exit.signal = 0;
    if (worker->pid != 0) reap_process(worker);
    worker->uptime_ms = sb_clock_now(&worker->ctx->loop.clock) - worker->started_at;
    close_all(worker);
    worker->ladder = SB_LADDER_NONE;
    enter(worker, EV_ENDED);
    worker->ctx->hooks.worker_stopped(worker->ctx, worker);
    worker->ending = false;
}

static void on_process(sb_io *io, unsigned events)
{
    (void)events;
    ended(SB_CONTAINER(io, sb_worker, process));
}

static void on_timer(sb_timer *timer)
{
    sb_worker *worker = SB_CONTAINER(timer, sb_worker, timer);
    if (worker->pid == 0) {
        worker->ctx->hooks.worker_retry(worker->ctx, worker);
    } else if (sb_reap_ended(worker->pid)) {
        ended(worker);
    } else {
        if (worker->rung_at <= worker->ctx->loop.now) climb(worker);
        arm(worker);
    }
}

void sb_worker_retry_at(sb_worker *worker, uint64_t due, bool failed)
{
    enter(worker, failed ? EV_GIVE_UP : EV_RETRY_LATER);
    if (due != UINT64_MAX) sb_timer_set(&worker->ctx->loop.timers, &worker->timer, due);
}

void sb_worker_abort(sb_worker *worker)
{
    sb_balance_remove(&worker->peer.node);
    sb_timer_cancel(&worker->ctx->loop.timers, &worker->timer);
    if (worker->pid != 0 && !worker->ctx->loop.foreign) {
        signal_group(worker, SIGKILL);
        reap_process(worker);
    }
    worker->pid = 0;
    close_all(worker);
    worker->state = SB_WORKER_STOPPED;
}
