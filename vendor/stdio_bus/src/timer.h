/*
 * timer.h - deadlines in a binary heap. Pure: time is an argument.
 */
#ifndef SB_TIMER_H
#define SB_TIMER_H

#include "base.h"

typedef struct sb_timer sb_timer;
typedef void (*sb_timer_fn)(sb_timer *timer);

/* A deadline, embedded in whatever it belongs to. */
struct sb_timer {
    uint64_t due; /* milliseconds */
    size_t place; /* in the heap, from 1; 0 when not set */
    sb_timer_fn fire;
};

typedef struct {
    sb_timer **heap;
    size_t set;   /* timers in the heap */
    size_t known; /* timers that were registered: the heap has room for them all */
    size_t cap;
} sb_timers;

void sb_timers_free(sb_timers *timers);

/* Makes room for one more timer, so that setting it cannot fail. False without memory. */
bool sb_timer_register(sb_timers *timers, sb_timer *timer, sb_timer_fn fire);

/* Gives the room back; cancels the timer. */
void sb_timer_unregister(sb_timers *timers, sb_timer *timer);

/* Sets or moves the deadline. */
void sb_timer_set(sb_timers *timers, sb_timer *timer, uint64_t due);

void sb_timer_cancel(sb_timers *timers, sb_timer *timer);

static inline bool sb_timer_is_set(const sb_timer *timer)
{
    return timer->place != 0;
}

/* The earliest deadline, or UINT64_MAX. */
static inline uint64_t sb_timers_due(const sb_timers *timers)
{
    return timers->set > 0 ? timers->heap[0]->due : UINT64_MAX;
}

/* Fires everything due at `now`, and nothing that those set anew; returns how many fired. */
int sb_timers_run(sb_timers *timers, uint64_t now);

#endif
