/*
 * clock.h - monotonic time, replaceable in tests.
 */
#ifndef SB_CLOCK_H
#define SB_CLOCK_H

#include "base.h"

typedef struct {
    uint64_t (*now)(void *arg); /* microseconds */
    void *arg;
} sb_clock;

/* The system's monotonic clock. */
sb_clock sb_clock_system(void);

static inline uint64_t sb_clock_micros(const sb_clock *clock)
{
    return clock->now(clock->arg);
}

/* Milliseconds: what deadlines are in. */
static inline uint64_t sb_clock_now(const sb_clock *clock)
{
    return sb_clock_micros(clock) / 1000u;
}

#endif
