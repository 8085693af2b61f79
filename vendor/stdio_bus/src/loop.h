/*
 * loop.h - one turn of waiting and handing out: descriptors, timers, and a
 * wake-up that any thread may cause.
 */
#ifndef SB_LOOP_H
#define SB_LOOP_H

#include <stdatomic.h>

#include "clock.h"
#include "latency.h"
#include "poller.h"
#include "timer.h"

#define SB_LOOP_BATCH 256

typedef struct {
    const sb_poller_ops *ops;
    sb_poller *poller;
    sb_clock clock;
    uint64_t now; /* milliseconds, as of the last wait */
    uint32_t ticks; /* the same in ticks of latency.h, or as of what the host did first after the last turn */
    bool host_waits; /* the turn is over, and it is the host that waits for the next, with the poll fd */
    sb_timers timers;
    sb_io wake;       /* eventfd, or the read end of a pipe */
    int wake_fd;      /* where a wake-up is written */
    atomic_bool woken; /* a wake-up was written and not yet read */
    bool foreign;      /* see sb_loop_disown */
    sb_io alarm;      /* timerfd; only once the poll fd has been asked for */
    uint64_t alarm_due; /* what the timerfd is set to */
    sb_io **always;   /* descriptors that are always ready */
    size_t always_count;
    size_t always_cap;
    sb_ready ready[SB_LOOP_BATCH];
    int ready_count;
} sb_loop;

/* Returns 0 or an errno value. */
int sb_loop_init(sb_loop *loop, sb_clock clock, bool use_poll);

void sb_loop_free(sb_loop *loop);

/*
 * This is a forked copy: the poller, the wake-up and all that is open are
 * shared with the process that it belongs to. From now on it is only freed.
 */
void sb_loop_disown(sb_loop *loop);

/* Watches `fd`; io->on_ready is called from a turn. Returns 0 or an errno value. */
int sb_loop_watch(sb_loop *loop, sb_io *io, int fd, unsigned interest, sb_io_fn on_ready);

/* Changes what is waited for; does nothing where that is the case already. */
void sb_loop_interest(sb_loop *loop, sb_io *io, unsigned interest);

/*
 * Stops watching, also for events of the present turn that were not handed out
 * yet. Does not close the descriptor; sets io->fd to -1.
 */
void sb_loop_unwatch(sb_loop *loop, sb_io *io);

/* Begins a turn: waits up to `timeout_ms` (-1: without limit) or until the next deadline. */
void sb_loop_wait(sb_loop *loop, int timeout_ms);

/* The host does something: if it is the first since the last turn, the time is read again. */
static inline void sb_loop_resume(sb_loop *loop)
{
    if (!loop->host_waits) return;
    loop->host_waits = false;
    loop->ticks = sb_ticks(sb_clock_micros(&loop->clock));
}

/* Ends it: calls what is due. Returns the number of events and timers handled; wake-ups don't count. */
int sb_loop_hand_out(sb_loop *loop);

/* Makes the present or the next turn return at once. Any thread; async-signal-safe. */
void sb_loop_wake(sb_loop *loop);

/* A descriptor that is readable exactly when a turn has something to do, or -1. */
int sb_loop_expose(sb_loop *loop);

/* Makes an exposed descriptor agree with the timers; to be called before control returns to the host. */
void sb_loop_settle(sb_loop *loop);

#endif
