#include "conn.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_socket(int fd)
{
    struct stat info;
    return fstat(fd, &info) == 0 && S_ISSOCK(info.st_mode);
}

static void stop_watching(sb_conn *conn, sb_io *io, int flags)
{
    int fd = io->fd;
    if (fd < 0) return;
    sb_loop_unwatch(&conn->ctx->loop, io);
    /* The other side of these descriptors may be in use elsewhere, a terminal for one. */
    if (conn->pair) fcntl(fd, F_SETFL, flags);
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
    if (conn->closing || (conn->eof && conn->peer.asked == 0)) sb_conn_close(conn, "closed");
}

static void on_flushed(sb_ctx *ctx, sb_sink *sink, int error)
{
    sb_conn *conn = SB_CONTAINER(sink, sb_conn, sink);
    (void)ctx;
    if (error != 0) {
        sb_conn_close(conn, error == EPIPE || error == ECONNRESET ? "closed" : "error");
    } else {
        close_if_done(conn);
    }
}

static void stop_reading(sb_conn *conn)
{
    if (conn->wio.fd >= 0) {
        stop_watching(conn, &conn->io, conn->flags[0]);
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
    sb_timer_set(&ctx->loop.timers, &conn->timer, ctx->loop.now + (uint64_t)ctx->limits.drain_timeout_sec * 1000u);
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
        if (hung_up && !conn->pair) {
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

static void on_timer(sb_timer *timer)
{
    sb_conn_close(SB_CONTAINER(timer, sb_conn, timer), "timeout");
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

sb_conn *sb_conn_open(sb_ctx *ctx, int id, int fd_from, int fd_to, bool tcp, bool pair)
{
    sb_conn *conn = sb_calloc(1, sizeof *conn);
    int error = ENOMEM;
    if (conn == NULL) {
        errno = error;
        return NULL;
    }
    conn->ctx = ctx;
    conn->id = id;
    conn->tcp = tcp;
    conn->pair = pair;
    conn->io.fd = conn->wio.fd = -1;
    if (pair) {
        conn->flags[0] = fcntl(fd_from, F_GETFL);
        conn->flags[1] = fcntl(fd_to, F_GETFL);
        fcntl(fd_from, F_SETFL, conn->flags[0] | O_NONBLOCK);
        fcntl(fd_to, F_SETFL, conn->flags[1] | O_NONBLOCK);
    }
    sb_source_init(&conn->source, ctx->limits.max_input_buffer);
    sb_peer_init(&ctx->router, &conn->peer, false);
    sb_sink_init(&conn->sink, fd_to == fd_from ? &conn->io : &conn->wio, is_socket(fd_to), on_flushed);
    if (sb_timer_register(&ctx->loop.timers, &conn->timer, on_timer)) {
        error = watch(conn, fd_from, fd_to);
        if (error == 0) return conn;
    }
    sb_conn_free(conn);
    errno = error;
    return NULL;
}
