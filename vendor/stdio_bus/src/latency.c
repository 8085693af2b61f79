#include "latency.h"

#define STEP_BITS 4u

/* The number of the highest bit that is set; there must be one. */
static unsigned top_bit(uint64_t value)
{
#if defined(__GNUC__)
    return 63u - (unsigned)__builtin_clzll(value);
#else
    unsigned bit = 0;
    while (value >>= 1) bit++;
    return bit;
#endif
}

static size_t bucket_of(uint64_t micros)
{
    unsigned shift;
    size_t bucket;
    if (micros < SB_LATENCY_STEPS) return (size_t)micros;
    shift = top_bit(micros) - STEP_BITS;
    /* The leading one and the bits behind it that tell the step. */
    bucket = shift * SB_LATENCY_STEPS + (size_t)(micros >> shift);
    return bucket < SB_LATENCY_BUCKETS ? bucket : SB_LATENCY_BUCKETS - 1;
}

/* The longest time of a bucket. */
static uint64_t end_of(size_t bucket)
{
    uint64_t step = bucket % SB_LATENCY_STEPS;
    size_t octave = bucket / SB_LATENCY_STEPS;
    return octave == 0 ? step : ((SB_LATENCY_STEPS + step + 1) << (octave - 1)) - 1;
}

void sb_latency_add(sb_latency *latency, uint64_t micros)
{
    uint32_t *bucket = &latency->buckets[bucket_of(micros)];
    latency->count++;
    if (micros > latency->max) latency->max = micros;
    if (SB_UNLIKELY(*bucket == UINT32_MAX)) {
        for (size_t i = 0; i < SB_LATENCY_BUCKETS; i++) latency->buckets[i] /= 2;
    }
    ++*bucket;
}

uint64_t sb_latency_quantile(const sb_latency *latency, unsigned percent)
{
    uint64_t total = 0, seen = 0;
    size_t bucket = 0;
    for (size_t i = 0; i < SB_LATENCY_BUCKETS; i++) total += latency->buckets[i];
    if (total == 0) return 0;
    /* The first that is reached by so many; there is one, since all of them together reach a hundred of a hundred. */
    while ((seen += latency->buckets[bucket]) == 0 || seen * 100 < total * percent) bucket++;
    return end_of(bucket) < latency->max ? end_of(bucket) : latency->max;
}
