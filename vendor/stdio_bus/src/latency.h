/*
 * latency.h - how long answers took, in buckets whose number doesn't grow.
 * Pure: no clock.
 *
 * When something began is kept in ticks of 16 us modulo 2^32, so that it fits
 * where it is kept: what takes longer than 19 hours is taken for shorter.
 */
#ifndef SB_LATENCY_H
#define SB_LATENCY_H

#include "base.h"

/* Each power of two of microseconds has this many buckets, so a bucket is at most a sixteenth wide. */
#define SB_LATENCY_STEPS 16u
/* Up to 2^36 us, which is what ticks can tell. */
#define SB_LATENCY_BUCKETS (33u * SB_LATENCY_STEPS)

#define SB_TICK_US 16u

typedef struct {
    uint64_t count; /* of all that was added */
    uint64_t max;   /* of that, microseconds */
    uint32_t buckets[SB_LATENCY_BUCKETS];
} sb_latency;

/* A time of the clock, in ticks. */
static inline uint32_t sb_ticks(uint64_t micros)
{
    return (uint32_t)(micros / SB_TICK_US);
}

/* Microseconds between two times in ticks. */
static inline uint64_t sb_ticks_between(uint32_t from, uint32_t to)
{
    return (uint64_t)(uint32_t)(to - from) * SB_TICK_US;
}

/*
 * When a bucket is full, all lose half of what they hold: so what was added
 * lately weighs more, and nothing overflows.
 */
void sb_latency_add(sb_latency *latency, uint64_t micros);

/* What `percent` of a hundred didn't exceed, at most a sixteenth and 1 us too much; 0 if nothing was added. */
uint64_t sb_latency_quantile(const sb_latency *latency, unsigned percent);

#endif
