/* hooks.c - joins what workers, clients and listeners report to the bus above them. */
#include "bus.h"

static void worker_frame(sb_ctx *ctx, sb_worker *worker, sb_span frame)
{
    sb_dispatch_from_worker(sb_bus_of(ctx), worker, frame);
}

static void worker_oversize(sb_ctx *ctx, sb_worker *worker, sb_span beginning)
{
    sb_dispatch_worker_oversize(sb_bus_of(ctx), worker, beginning);
}

static void worker_stderr(sb_ctx *ctx, sb_worker *worker, sb_span line)
{
    sb_log(ctx, SB_LOG_DEBUG, "worker %d (%s): %.*s", worker->id, worker->config->id,
           (int)(line.len < 512 ? line.len : 512), line.ptr);
    sb_report_worker(sb_bus_of(ctx), STDIO_BUS_EVENT_WORKER_STDERR, worker, line, 0);
}

static sb_sender sender_of(sb_conn *conn)
{
    sb_sender sender = {0};
    sender.peer = &conn->peer;
    sender.conn = conn;
    sender.answer_errors = true;
    return sender;
}

/* A newline between tokens is legal where a length says how long a frame is; to a worker it would end the frame. */
static void flatten(sb_span frame)
{
    char *p = (char *)(uintptr_t)frame.ptr;
    for (size_t i = 0; i < frame.len; i++) {
        if (p[i] == '\n' || p[i] == '\r') p[i] = ' ';
    }
}

static void client_frame(sb_ctx *ctx, sb_conn *conn, sb_span frame)
{
    sb_sender sender = sender_of(conn);
    if (conn->source.framer.by_length) flatten(frame);
    sb_dispatch_from_client(sb_bus_of(ctx), &sender, frame);
}

static void client_oversize(sb_ctx *ctx, sb_conn *conn, sb_span beginning)
{
    sb_sender sender = sender_of(conn);
    sb_dispatch_client_oversize(sb_bus_of(ctx), &sender, beginning);
}

static void client_eof(sb_ctx *ctx, sb_conn *conn)
{
    sb_dispatch_decline_held(sb_bus_of(ctx), &conn->peer);
}

static void client_overdue(sb_ctx *ctx, sb_conn *conn)
{
    sb_error error = sb_error_of(SB_RPC_SHUTTING_DOWN, "drain_timeout",
                                 "No answer within drain_timeout_sec after the end of the client's input");
    sb_dispatch_fail_asked(sb_bus_of(ctx), &conn->peer, &error);
}

static void client_accepted(sb_ctx *ctx, sb_listener *listener, int fd, const char *peer)
{
    sb_clients_accept(sb_bus_of(ctx), listener, fd, peer);
}

const sb_hooks sb_bus_hooks = {
    .log = sb_report_log,
    .worker_frame = worker_frame,
    .worker_oversize = worker_oversize,
    .worker_stderr = worker_stderr,
    .worker_started = sb_pool_worker_started,
    .worker_stalled = sb_pool_worker_stalled,
    .worker_reads = sb_pool_worker_reads,
    .worker_writable = sb_pool_worker_writable,
    .worker_stopping = sb_pool_worker_stopping,
    .worker_stopped = sb_pool_worker_stopped,
    .worker_retry = sb_pool_worker_retry,
    .client_frame = client_frame,
    .client_oversize = client_oversize,
    .client_eof = client_eof,
    .client_overdue = client_overdue,
    .client_closed = sb_clients_closed,
    .client_accepted = client_accepted,
};
