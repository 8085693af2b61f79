/*
 * worker.h - one supervised child process (or embedded worker) and its state.
 * When to start it again is decided above, in pool.c.
 */
#ifndef SB_WORKER_H
#define SB_WORKER_H

#include "diag.h"
#include "reap.h"
#include "share.h"
#include "sink.h"
#include "source.h"

/* Values as STDIO_BUS_WORKER_*. */
typedef enum {
    SB_WORKER_STOPPED,
    SB_WORKER_STARTING,
    SB_WORKER_READY,
    SB_WORKER_STOPPING,
    SB_WORKER_BACKOFF,
    SB_WORKER_FAILED
} sb_worker_state;

typedef enum { SB_LADDER_NONE, SB_LADDER_EOF, SB_LADDER_TERM, SB_LADDER_KILL } sb_ladder;

struct sb_worker {
    sb_peer peer;
    sb_ctx *ctx;
    const sb_pool_config *config; /* the pool's */
    sb_pool *pool; /* NULL: a slot that no pool has now */
    sb_worker *next_of_pool; /* or the next such slot */
    int id;
    bool retiring; /* to be stopped once it has answered everything */
    sb_worker_state state;
    uint32_t generation; /* starts so far */
    bool served;         /* it has been ready in this generation */
    uint64_t hello;      /* id of the handshake it has not answered yet, or 0; see handshake.c */
    uint32_t hello_round; /* which handshake of its pool that is */
    uint32_t hello_at;    /* where its frame begins, as sb_request.at */
    uint64_t hello_due;
    uint64_t fence;     /* id of the ping it has not answered yet, or 0; see cancel.c */
    uint32_t fence_for; /* the last tombstone before that */
    pid_t pid;           /* 0: no process */
    pid_t last_pid;      /* of the generation that ended last */
    bool embedded;       /* lives in the host: descriptors, no process */
    bool ending;         /* its end is being told: not to be used again before that is done */
    sb_io in, out, err;  /* its stdin, stdout, stderr */
    sb_io process;       /* pidfd */
    sb_io verdict;       /* whether it was executed */
    sb_sink sink;
    sb_shares shares;    /* whose bytes the sink holds */
    uint32_t seen_written; /* of the sink's `written`, what the shares know */
    sb_source source;
    sb_diag diag;
    sb_timer timer;      /* by state: next rung of the ladder, time to start again, or time to look for its end */
    sb_timer stall_timer; /* looks whether it reads */
    uint64_t reads_at;    /* when it last read something, or had nothing to read */
    bool stalled;         /* hasn't read for SB_STALLED_MS */
    bool refused;         /* somebody was told that its outbox is full, and wants to hear when it no longer is */
    uint64_t garbage_log_at; /* from when on a line that is no frame is logged again */
    uint64_t started_at;
    sb_ladder ladder;
    uint64_t rung_at; /* when the next rung is climbed */
    uint64_t kill_at; /* when SIGKILL is due */
    sb_exit exit;        /* how it ended last */
    uint64_t uptime_ms;  /* of the generation that ended last */
    int exec_error;      /* errno of a failed execution, or 0 */
    const char *exec_step;
    struct {             /* restart policy; see pool.c */
        uint64_t window_start;
        uint32_t in_window;
        uint32_t backoffs;
        uint32_t total;
    } restarts;
};

/* How long a worker may leave its stdin unread before messages that any worker can take go elsewhere. */
#define SB_STALLED_MS 5000u

/* Makes a worker that doesn't run yet; NULL without memory. Its peer is initialised by whoever starts it. */
sb_worker *sb_worker_new(sb_ctx *ctx, int id);

/* Frees it; it must not run. */
void sb_worker_free(sb_worker *worker);

/* Starts the process. Returns 0 or an errno value; in that case it doesn't run and exec_step says what failed. */
int sb_worker_start(sb_worker *worker);

/* Waits until the start has been decided, at most `timeout_ms`. Returns 0, or the errno value of the failure. */
int sb_worker_await(sb_worker *worker, int timeout_ms);

/* Makes it an embedded worker over these descriptors, which stay the caller's on failure. Returns 0 or an errno value. */
int sb_worker_embed(sb_worker *worker, int fd_to, int fd_from);

/*
 * Ends it within `timeout_ms`: end of input, SIGTERM, SIGKILL, each to its
 * process group. 0 kills at once. May be called again to hasten it. A worker
 * that only waits to be started again is stopped at once.
 */
void sb_worker_stop(sb_worker *worker, uint64_t timeout_ms);

/* Kills, reaps and closes at once, without hooks; for destroy. */
void sb_worker_abort(sb_worker *worker);

/* It runs, and takes messages from now on. */
void sb_worker_ready(sb_worker *worker);

/* It takes no messages until it is ready again. */
void sb_worker_unready(sb_worker *worker);

/* It is of no use: makes it end. What then happens is up to the restart policy. Not while its frames are walked. */
void sb_worker_leave(sb_worker *worker);

/* Not running; to be started again at `due`. */
void sb_worker_retry_at(sb_worker *worker, uint64_t due, bool failed);

/* `len` bytes were queued in its sink, for the client of the link, or (SB_NONE) for nobody. */
void sb_worker_queued(sb_worker *worker, uint32_t link, size_t len);

/* Whether messages can be given to it. */
static inline bool sb_worker_takes(const sb_worker *worker)
{
    return worker->state == SB_WORKER_READY && worker->in.fd >= 0 && worker->ladder == SB_LADDER_NONE &&
           !worker->retiring;
}

static inline bool sb_worker_runs(const sb_worker *worker)
{
    return worker->pid != 0 || (worker->embedded && worker->out.fd >= 0);
}

#endif
