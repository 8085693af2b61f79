/*
 * ctx.h - what workers, clients and listeners of one bus share: the loop,
 * memory, limits, and the hooks through which they report upwards.
 */
#ifndef SB_CTX_H
#define SB_CTX_H

#include "buf.h"
#include "config.h"
#include "loop.h"
#include "router.h"

typedef struct sb_ctx sb_ctx;
typedef struct sb_sink sb_sink;
typedef struct sb_worker sb_worker;
typedef struct sb_conn sb_conn;
typedef struct sb_listener sb_listener;
typedef struct sb_pool sb_pool;

enum { SB_LOG_DEBUG, SB_LOG_INFO, SB_LOG_WARN, SB_LOG_ERROR };

/* What happens below is told to whoever joins the parts (dispatch.c, pool.c). */
typedef struct {
    void (*log)(sb_ctx *ctx, int level, const char *message);
    void (*worker_frame)(sb_ctx *ctx, sb_worker *worker, sb_span frame);
    void (*worker_oversize)(sb_ctx *ctx, sb_worker *worker, sb_span beginning);
    void (*worker_stderr)(sb_ctx *ctx, sb_worker *worker, sb_span line);
    void (*worker_started)(sb_ctx *ctx, sb_worker *worker);
    void (*worker_stalled)(sb_ctx *ctx, sb_worker *worker);  /* it doesn't read; worker->stalled */
    void (*worker_reads)(sb_ctx *ctx, sb_worker *worker);    /* it reads again */
    void (*worker_writable)(sb_ctx *ctx, sb_worker *worker); /* its outbox is half empty again */
    void (*worker_stopping)(sb_ctx *ctx, sb_worker *worker);
    void (*worker_stopped)(sb_ctx *ctx, sb_worker *worker); /* reaped; worker->exit says how */
    void (*worker_retry)(sb_ctx *ctx, sb_worker *worker);   /* its time to be started again has come */
    void (*client_frame)(sb_ctx *ctx, sb_conn *conn, sb_span frame);
    void (*client_oversize)(sb_ctx *ctx, sb_conn *conn, sb_span beginning);
    void (*client_eof)(sb_ctx *ctx, sb_conn *conn); /* it sends nothing more, but still reads */
    void (*client_overdue)(sb_ctx *ctx, sb_conn *conn); /* it has waited for its last answers as long as it may */
    void (*client_closed)(sb_ctx *ctx, sb_conn *conn, const char *reason);
    void (*client_accepted)(sb_ctx *ctx, sb_listener *listener, int fd, const char *peer);
} sb_hooks;

/* Input is read here first; only what is left of a split frame is kept with its owner. */
#define SB_SCRATCH_SIZE (256u * 1024u)

struct sb_ctx {
    sb_loop loop;
    sb_chunks chunks;
    sb_router router;
    sb_limits limits;
    sb_hooks hooks;
    char *scratch;
    sb_sink *dirty;       /* sinks with bytes to flush */
    uint64_t outbox_bytes; /* in all outboxes */
    bool no_quiet_write;  /* the system can't write to a pipe without SIGPIPE */
    bool parent_death_signal;
    bool stderr_inherit; /* where the configuration says nothing */
    int log_level;
};

/* Formats and reports a line, if its level is wanted. */
void sb_log(sb_ctx *ctx, int level, const char *format, ...) SB_PRINTF(3, 4);

#endif
