/*
 * clock.h - monotonic time in milliseconds, replaceable in tests.
 */
#ifndef SB_CLOCK_H
#define SB_CLOCK_H

#include "base.h"

typedef struct {
    uint64_t (*now)(void *arg);
    void *arg;
} sb_clock;

/* The system's monotonic clock. */
sb_clock sb_clock_system(void);

static inline uint64_t sb_clock_now(const sb_clock *clock)
{
    return clock->now(clock->arg);
}

#endif
