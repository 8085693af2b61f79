#include "conn.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static void stop_watching(sb_conn *conn, sb_io *io, int flags)
{
    int fd = io->fd;
    if (fd < 0) return;
    sb_loop_unwatch(&conn->ctx->loop, io);
    /* The other side of these descriptors may be in use elsewhere, a terminal for one. */
    if (conn->pair && !conn->ctx->loop.foreign) fcntl(fd, F_SETFL, flags);
    close(fd);
}

void sb_conn_close(sb_conn *conn, const char *reason)
{
    if (conn->closed) return;
    conn->closed = true;
    sb_sink_close(conn->ctx, &conn->sink);
    stop_watching(conn, &conn->io, conn->flags[0]);
    stop_watching(conn, &conn->wio, conn->flags[1]);
    sb_timer_cancel(&conn->ctx->loop.timers, &conn->timer);
    conn->ctx->hooks.client_closed(conn->ctx, conn, reason);
}

void sb_conn_free(sb_conn *conn)
{
    sb_timer_unregister(&conn->ctx->loop.timers, &conn->timer);
    sb_source_free(&conn->source);
    sb_free(conn);
}

/* A client that sends nothing more is closed once nothing is owed to it. */
static void close_if_done(sb_conn *conn)
{
    if (conn->sink.outbox.bytes > 0) return;
    if (conn->closing || (conn->eof && conn->peer.asked == 0)) sb_conn_close(conn, conn->overdue ? "timeout" : "closed");
}

static uint64_t earliest(const sb_conn *conn)
{
    uint64_t due = conn->eof_due < conn->stall_due ? conn->eof_due : conn->stall_due;
    return conn->auth_due < due ? conn->auth_due : due;
}

/* The timer is only ever moved forward here; one that is early finds nothing due and sets itself anew. */
static void arm(sb_conn *conn)
{
    uint64_t due = earliest(conn);
    if (due == UINT64_MAX || (sb_timer_is_set(&conn->timer) && conn->timer.due <= due)) return;
    sb_timer_set(&conn->ctx->loop.timers, &conn->timer, due);
}

/* It is closed once it has heard that. */
static void tell_overdue(sb_conn *conn)
{
    conn->overdue = true;
    conn->eof_due = UINT64_MAX;
    conn->ctx->hooks.client_overdue(conn->ctx, conn);
    if (conn->closed) return;
    arm(conn);
    sb_sink_touch(conn->ctx, &conn->sink);
}

static void on_timer(sb_timer *timer)
{
    sb_conn *conn = SB_CONTAINER(timer, sb_conn, timer);
    uint64_t now = conn->ctx->loop.now;
    if (conn->eof_due <= now && now < conn->stall_due && conn->peer.asked > 0) {
        tell_overdue(conn);
    } else if (earliest(conn) <= now) {
        sb_conn_close(conn, "timeout");
    } else {
        arm(conn);
    }
}

/* A client that takes none of its answers for too long is closed. */
static void watch_reading(sb_conn *conn)
{
    if (conn->sink.outbox.bytes == 0) {
        conn->stall_due = UINT64_MAX;
    } else if (conn->stall_due == UINT64_MAX || conn->sink.written != conn->seen_written) {
        conn->stall_due = conn->ctx->loop.now + (uint64_t)conn->ctx->limits.backpressure_timeout_sec * 1000u;
        arm(conn);
    }
    conn->seen_written = conn->sink.written;
}

static void on_flushed(sb_ctx *ctx, sb_sink *sink, int error)
{
    sb_conn *conn = SB_CONTAINER(sink, sb_conn, sink);
    (void)ctx;
    if (error != 0) {
        sb_conn_close(conn, error == EPIPE || error == ECONNRESET ? "closed" : "error");
        return;
    }
    watch_reading(conn);
    close_if_done(conn);
}

void sb_conn_admit(sb_conn *conn)
{
    conn->listener = NULL;
    conn->auth_due = UINT64_MAX;
    conn->source.framer.max = conn->ctx->limits.max_input_buffer;
}

static void stop_reading(sb_conn *conn)
{
    if (conn->wio.fd >= 0) {
        stop_watching(conn, &conn->io, conn->flags[0]);
        fcntl(conn->wio.fd, F_SETFL, conn->flags[1] | O_NONBLOCK);
    } else {
        sb_loop_interest(&conn->ctx->loop, &conn->io, conn->io.interest & ~SB_READ);
    }
}

void sb_conn_finish(sb_conn *conn)
{
    if (conn->closed || conn->closing) return;
    conn->closing = true;
    stop_reading(conn);
    /* Its last answer may just be waiting for the flush at the end of this turn. */
    sb_sink_touch(conn->ctx, &conn->sink);
}

static void at_eof(sb_conn *conn)
{
    sb_ctx *ctx = conn->ctx;
    conn->eof = true;
    stop_reading(conn);
    ctx->hooks.client_eof(ctx, conn);
    if (conn->closed) return;
    conn->eof_due = ctx->loop.now + (uint64_t)ctx->limits.drain_timeout_sec * 1000u;
    arm(conn);
    sb_sink_touch(ctx, &conn->sink);
}

static bool take_frame(sb_ctx *ctx, void *owner, sb_span frame)
{
    sb_conn *conn = owner;
    ctx->hooks.client_frame(ctx, conn, frame);
    return !conn->closed && !conn->closing;
}

static bool take_oversize(sb_ctx *ctx, void *owner, sb_span beginning)
{
    sb_conn *conn = owner;
    ctx->hooks.client_oversize(ctx, conn, beginning);
    return !conn->closed && !conn->closing;
}

static const sb_source_fns input_fns = {take_frame, take_oversize};

static void read_input(sb_conn *conn, bool hung_up)
{
    switch (sb_source_read(conn->ctx, &conn->source, conn->io.fd, &input_fns, conn)) {
    case SB_SOURCE_MORE:
    case SB_SOURCE_EMPTY:
    case SB_SOURCE_GONE: break;
    case SB_SOURCE_ERROR:
        sb_conn_close(conn, errno == ECONNRESET ? "closed" : "error");
        break;
    case SB_SOURCE_END:
        /* A socket that hung up reads nothing either; a pipe's hang-up says only that no more comes. */
        if (conn->wio.fd < 0 && (hung_up || conn->leaves_at_eof)) {
            sb_conn_close(conn, "closed");
        } else {
            at_eof(conn);
        }
        break;
    }
}

static void on_ready(sb_io *io, unsigned events)
{
    sb_conn *conn = SB_CONTAINER(io, sb_conn, io);
    bool reading = io->interest & SB_READ;
    bool hung_up = events & SB_HANGUP;
    if (reading && (events & (SB_READ | SB_HANGUP))) {
        read_input(conn, hung_up);
    } else if (hung_up) {
        sb_conn_close(conn, "closed");
    }
    if ((events & SB_WRITE) && !conn->closed) sb_sink_flush(conn->ctx, &conn->sink);
}

/* The write side of a pair. */
static void on_writable(sb_io *io, unsigned events)
{
    sb_conn *conn = SB_CONTAINER(io, sb_conn, wio);
    if (events & SB_HANGUP) {
        sb_conn_close(conn, "closed");
    } else {
        sb_sink_flush(conn->ctx, &conn->sink);
    }
}

static int watch(sb_conn *conn, int fd_from, int fd_to)
{
    sb_loop *loop = &conn->ctx->loop;
    int error = sb_loop_watch(loop, &conn->io, fd_from, SB_READ, on_ready);
    if (error == 0 && fd_to != fd_from) {
        error = sb_loop_watch(loop, &conn->wio, fd_to, 0, on_writable);
        if (error != 0) sb_loop_unwatch(loop, &conn->io);
    }
    return error;
}

static void take_over(sb_conn *conn, const sb_conn_plan *plan)
{
    int fds[2] = {plan->fd_from, plan->fd_to};
    /* Both before either is changed: they may be the same open file. */
    for (int i = 0; i < 2; i++) conn->flags[i] = fcntl(fds[i], F_GETFL);
    for (int i = 0; i < 2; i++) fcntl(fds[i], F_SETFL, conn->flags[i] | O_NONBLOCK);
}

sb_conn *sb_conn_open(sb_ctx *ctx, int id, const sb_conn_plan *plan)
{
    sb_conn *conn = sb_calloc(1, sizeof *conn);
    bool same = plan->fd_from == plan->fd_to;
    int error = ENOMEM;
    if (conn == NULL) {
        errno = error;
        return NULL;
    }
    conn->ctx = ctx;
    conn->id = id;
    conn->tcp = plan->tcp;
    conn->pair = plan->pair;
    conn->pool = plan->pool;
    conn->listener = plan->listener;
    conn->eof_due = conn->stall_due = conn->auth_due = UINT64_MAX;
    conn->io.fd = conn->wio.fd = -1;
    if (plan->pair) take_over(conn, plan);
    sb_source_init(&conn->source, plan->listener != NULL ? SB_AUTH_FRAME_MAX : ctx->limits.max_input_buffer);
    conn->source.framer.by_length = plan->length_framed;
    sb_peer_init(&ctx->router, &conn->peer, false);
    sb_sink_init(&conn->sink, same ? &conn->io : &conn->wio, plan->fd_to, on_flushed);
    conn->sink.length_framed = plan->length_framed;
    if (sb_timer_register(&ctx->loop.timers, &conn->timer, on_timer)) {
        error = watch(conn, plan->fd_from, plan->fd_to);
        if (error == 0) {
            if (plan->listener != NULL) conn->auth_due = ctx->loop.now + SB_AUTH_TIMEOUT_MS;
            arm(conn);
            return conn;
        }
    }
    if (plan->pair) {
        fcntl(plan->fd_from, F_SETFL, conn->flags[0]);
        fcntl(plan->fd_to, F_SETFL, conn->flags[1]);
    }
    sb_conn_free(conn);
    errno = error;
    return NULL;
}
